"""``modules.edged`` of EdgeCore, with what it has of KubeletConfiguration: names, types and defaults of KubeEdge v1.12, and a few of ours."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from edgesite.runtime.config.base import Duration, Model, PortOrZero

__all__ = ["Edged", "NodeName", "TailoredKubeletConfig", "Taint"]

_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _node_name(text: str) -> str:
    if text and (not _NODE_NAME.fullmatch(text) or len(text) > 253):
        raise ValueError(
            "is no valid node name: lower case letters, digits, '-' and '.', beginning and ending with a letter or digit"
        )
    return text


NodeName = Annotated[str, AfterValidator(_node_name)]


class Taint(Model):
    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    timeAdded: str | None = None


class Logging(Model):
    format: str = "text"
    sanitization: bool = False


class TailoredKubeletConfig(Model):
    """The keys of KubeletConfiguration v1beta1 (Kubernetes 1.22)."""

    apiVersion: str = ""
    kind: str = ""
    enableServer: bool = False
    address: str = "127.0.0.1"
    readOnlyPort: PortOrZero = 10350
    port: PortOrZero = 0
    failSwapOn: bool = False
    contentType: str = "application/json"
    configMapAndSecretChangeDetectionStrategy: Literal["Get", "Watch", "Cache"] = "Get"
    imageGCHighThresholdPercent: int = Field(80, ge=0, le=100)
    imageGCLowThresholdPercent: int = Field(40, ge=0, le=100)
    imageMinimumGCAge: Duration = "2m0s"
    syncFrequency: Duration = "1m0s"
    fileCheckFrequency: Duration = "20s"
    httpCheckFrequency: Duration = "20s"
    staticPodPath: str = ""
    staticPodURL: str = ""
    staticPodURLHeader: dict[str, list[str]] = Field(default_factory=dict)
    tlsCertFile: str = ""
    tlsPrivateKeyFile: str = ""
    tlsCipherSuites: list[str] = Field(default_factory=list)
    tlsMinVersion: str = ""
    rotateCertificates: bool = False
    serverTLSBootstrap: bool = False
    authentication: dict[str, Any] = Field(default_factory=dict)
    authorization: dict[str, Any] = Field(default_factory=dict)
    registryPullQPS: int = 5
    registryBurst: int = 10
    eventRecordQPS: int = 5
    eventBurst: int = 10
    enableDebuggingHandlers: bool = True
    enableContentionProfiling: bool = False
    healthzPort: PortOrZero = 10248
    healthzBindAddress: str = "127.0.0.1"
    oomScoreAdj: int = -999
    clusterDomain: str = ""
    clusterDNS: list[str] = Field(default_factory=list)
    streamingConnectionIdleTimeout: Duration = "4h0m0s"
    nodeStatusUpdateFrequency: Duration = "10s"
    nodeStatusReportFrequency: Duration = "5m0s"
    nodeLeaseDurationSeconds: int = Field(40, ge=1)
    volumeStatsAggPeriod: Duration = "1m0s"
    kubeletCgroups: str = ""
    systemCgroups: str = ""
    cgroupRoot: str = ""
    cgroupsPerQOS: bool = True
    cgroupDriver: Literal["cgroupfs", "systemd"] = "cgroupfs"
    cpuManagerPolicy: str = "none"
    cpuManagerPolicyOptions: dict[str, str] = Field(default_factory=dict)
    cpuManagerReconcilePeriod: Duration = "10s"
    memoryManagerPolicy: str = "None"
    reservedMemory: list[dict[str, Any]] = Field(default_factory=list)
    topologyManagerPolicy: str = "none"
    topologyManagerScope: str = "container"
    qosReserved: dict[str, str] = Field(default_factory=dict)
    runtimeRequestTimeout: Duration = "2m0s"
    hairpinMode: str = "promiscuous-bridge"
    maxPods: int = Field(110, ge=1)
    podsPerCore: int = 0
    podPidsLimit: int = -1
    podCIDR: str = ""
    resolvConf: str = "/etc/resolv.conf"
    runOnce: bool = False
    cpuCFSQuota: bool = True
    cpuCFSQuotaPeriod: Duration = "100ms"
    nodeStatusMaxImages: int = 50
    maxOpenFiles: int = 1000000
    kubeAPIQPS: int = 5
    kubeAPIBurst: int = 10
    serializeImagePulls: bool = True
    evictionHard: dict[str, str] = Field(
        default_factory=lambda: {
            "memory.available": "100Mi",
            "nodefs.available": "10%",
            "nodefs.inodesFree": "5%",
            "imagefs.available": "15%",
        }
    )
    evictionSoft: dict[str, str] = Field(default_factory=dict)
    evictionSoftGracePeriod: dict[str, str] = Field(default_factory=dict)
    evictionMinimumReclaim: dict[str, str] = Field(default_factory=dict)
    evictionPressureTransitionPeriod: Duration = "5m0s"
    evictionMaxPodGracePeriod: int = 0
    enableControllerAttachDetach: bool = True
    protectKernelDefaults: bool = False
    makeIPTablesUtilChains: bool = True
    iptablesMasqueradeBit: int = 14
    iptablesDropBit: int = 15
    featureGates: dict[str, bool] = Field(default_factory=dict)
    memorySwap: dict[str, Any] = Field(default_factory=dict)
    containerLogMaxSize: str = "10Mi"
    containerLogMaxFiles: int = Field(5, ge=2)
    systemReserved: dict[str, str] = Field(default_factory=dict)
    kubeReserved: dict[str, str] = Field(default_factory=dict)
    reservedSystemCPUs: str = ""
    systemReservedCgroup: str = ""
    kubeReservedCgroup: str = ""
    enforceNodeAllocatable: list[str] = Field(default_factory=lambda: ["pods"])
    showHiddenMetricsForVersion: str = ""
    allowedUnsafeSysctls: list[str] = Field(default_factory=list)
    providerID: str = ""
    volumePluginDir: str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"
    kernelMemcgNotification: bool = False
    logging: Logging = Logging()
    enableSystemLogHandler: bool = True
    enableProfilingHandler: bool = True
    enableDebugFlagsHandler: bool = True
    shutdownGracePeriod: Duration = "0s"
    shutdownGracePeriodCriticalPods: Duration = "0s"
    seccompDefault: bool = False
    memoryThrottlingFactor: float = 0.8
    registerNode: bool | None = None
    registerWithTaints: list[Taint] | None = None
    containerRuntimeEndpoint: str = ""
    imageServiceEndpoint: str = ""


class Edged(Model):
    enable: bool = True
    tailoredKubeletConfig: TailoredKubeletConfig = TailoredKubeletConfig()
    customInterfaceName: str = ""
    registerNodeNamespace: str = "default"
    kubeConfig: str = "/etc/kubeedge/config/kubeconfig"
    hostnameOverride: NodeName = ""
    nodeIP: str = ""
    containerRuntime: str = Field("remote", description="docker is read as remote: dockershim is long gone")
    runtimeCgroups: str = ""
    dockershimRootDirectory: str = "/var/lib/dockershim"
    podSandboxImage: str = "kubeedge/pause:3.1"
    dockerEndpoint: str = "unix:///var/run/docker.sock"
    imagePullProgressDeadline: Duration = "1m0s"
    networkPluginName: str = ""
    networkPluginMTU: int = 1500
    cniConfDir: str = "/etc/cni/net.d"
    cniBinDir: str = "/opt/cni/bin"
    cniCacheDir: str = "/var/lib/cni/cache"
    cniCacheDirs: str = ""
    imageCredentialProviderConfigFile: str = ""
    imageCredentialProviderBinDir: str = ""
    certDirectory: str = ""
    rootDirectory: str = "/var/lib/edged"
    kubeletConfigFile: str = ""
    registerNode: bool = True
    registerWithTaints: list[Taint] = Field(default_factory=list)
    windowsService: bool = False
    windowsPriorityClass: str = ""
    remoteRuntimeEndpoint: str = "unix:///run/containerd/containerd.sock"
    remoteImageEndpoint: str = ""
    experimentalMounterPath: str = ""
    experimentalCheckNodeCapabilitiesBeforeMount: bool = False
    experimentalNodeAllocatableIgnoreEvictionThreshold: bool = False
    nodeLabels: dict[str, str] = Field(default_factory=dict)
    lockFilePath: str = ""
    exitOnLockContention: bool = False
    seccompProfileRoot: str = "/var/lib/edged/seccomp"
    minimumGCAge: Duration = "0s"
    maxPerPodContainerCount: int = 1
    maxContainerCount: int = -1
    masterServiceNamespace: str = "default"
    registerSchedulable: bool = True
    nonMasqueradeCidr: str = "10.0.0.0/8"
    keepTerminatedPodVolumes: bool = False
    seccompDefault: bool = False
    runtime: str = Field("auto", description="ours: auto, cri, process, or a plugin's runtime")
    devicePluginsDirectory: str = Field(
        "",
        description="ours: folder of device plugins' sockets; default: /var/lib/kubelet/device-plugins as edgecore, else device-plugins "
        "below rootDirectory",
    )
    podResourcesDirectory: str = Field(
        "",
        description="ours: folder of the socket that tells which containers have which devices; default: /var/lib/kubelet/pod-resources as "
        "edgecore, else pod-resources below rootDirectory",
    )
    podLogsDirectory: str = Field(
        "", description="ours: root of container logs; default: /var/log/pods as edgecore, else in the data directory"
    )
