{{/* cloudcore.yaml */}}
{{- define "cloudcore.config" -}}
{{- $modules := .Values.cloudCore.modules }}
{{- $hub := $modules.cloudHub }}
apiVersion: cloudcore.config.kubeedge.io/v1alpha1
kind: CloudCore
commonConfig:
  monitorServer:
    bindAddress: {{ ternary "127.0.0.1" "0.0.0.0" (eq "true" (include "cloudcore.on" .Values.cloudCore.hostNetWork)) }}:{{ .Values.cloudCore.monitorServer.port }}
{{- with .Values.cloudCore.featureGates }}
featureGates:
  {{- range $name, $value := . }}
  {{ $name }}: {{ include "cloudcore.bool" $value }}
  {{- end }}
{{- end }}
kubeAPIConfig:
  qps: {{ int .Values.cloudCore.kubeAPIConfig.qps }}
  burst: {{ int .Values.cloudCore.kubeAPIConfig.burst }}
modules:
  cloudHub:
    enable: true
    nodeLimit: {{ int $hub.nodeLimit }}
    {{- with compact $hub.advertiseAddress }}
    advertiseAddress: {{ toJson . }}
    {{- end }}
    {{- with compact $hub.dnsNames }}
    dnsNames: {{ toJson . }}
    {{- end }}
    websocket:
      enable: {{ include "cloudcore.bool" $hub.websocket.enable }}
    quic:
      enable: {{ include "cloudcore.bool" $hub.quic.enable }}
      maxIncomingStreams: {{ int $hub.quic.maxIncomingStreams }}
    https:
      enable: {{ include "cloudcore.bool" $hub.https.enable }}
  {{- range $name := list "admission" "cloudStream" "deviceController" "dynamicController" "nodeUpgradeJobController" "router" "syncController" "taskManager" }}
  {{ $name }}:
    enable: {{ include "cloudcore.bool" (index $modules $name).enable }}
  {{- end }}
  edgeController:
    enable: {{ include "cloudcore.bool" $modules.edgeController.enable }}
    nodeUpdateFrequency: {{ int $modules.edgeController.nodeUpdateFrequency }}
  iptablesManager:
    enable: {{ if include "cloudcore.makesRules" . }}true{{ else }}false{{ end }}
    mode: {{ .Values.iptablesManager.mode }}
{{- end }}
