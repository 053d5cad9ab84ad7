{{/* "true" for true and "true", else nothing. */}}
{{- define "cloudcore.on" -}}
{{- if eq (toString .) "true" }}true{{ end }}
{{- end }}

{{/* The word true or false, for YAML. */}}
{{- define "cloudcore.bool" -}}
{{- if include "cloudcore.on" . }}true{{ else }}false{{ end }}
{{- end }}

{{/* An image's name; takes its values and the chart. */}}
{{- define "cloudcore.image" -}}
{{ .image.repository }}:{{ .image.tag | default .chart.AppVersion }}
{{- end }}

{{/* Whether cloudcore itself makes the rules of the firewall. */}}
{{- define "cloudcore.makesRules" -}}
{{- if and (include "cloudcore.on" .Values.iptablesManager.enable) (eq .Values.iptablesManager.mode "internal") (include "cloudcore.on" .Values.cloudCore.hostNetWork) }}true{{ end }}
{{- end }}

{{/* PATH that finds the iptables with the kernel's older interface first. */}}
{{- define "cloudcore.legacyPath" -}}
/usr/lib/iptables-legacy:/usr/local/bin:/usr/sbin:/usr/bin
{{- end }}

{{- define "cloudcore.securityContext" -}}
{{- if .Values.cloudCore.securityContext }}
{{- toYaml .Values.cloudCore.securityContext }}
{{- else -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  {{- if include "cloudcore.makesRules" . }}
  add: [NET_ADMIN, NET_RAW]
  {{- end }}
{{- end }}
{{- end }}

{{/* A kubeconfig out of a Secret: its volume, and where it is mounted. */}}
{{- define "cloudcore.kubeconfig" -}}
- name: kubeconfig
  secret:
    secretName: {{ . }}
    items: [{key: kubeconfig, path: kubeconfig}]
{{- end }}
{{- define "cloudcore.kubeconfigMount" -}}
- {name: kubeconfig, mountPath: /etc/kubeedge/kubeconfig, readOnly: true}
{{- end }}

{{/* What stops a release that could not work. */}}
{{- define "cloudcore.check" -}}
{{- if include "cloudcore.on" .Values.controllerManager.enable }}
{{- fail "controllerManager.enable: the controller manager is not part of this version" }}
{{- end }}
{{- $hub := .Values.cloudCore.modules.cloudHub }}
{{- if not (or (include "cloudcore.on" .Values.cloudCore.hostNetWork) (compact $hub.advertiseAddress) (compact $hub.dnsNames)) }}
{{- fail "cloudCore.modules.cloudHub.advertiseAddress or dnsNames: without the host's network, say how edges reach this" }}
{{- end }}
{{- end }}
