"""What edged takes from its configuration, read once into plain values.

Units   Durations are seconds; sizes are bytes.
Errors  InvalidTime, InvalidQuantity for a duration or a size that cannot be read (the configuration was validated before, so this is our bug).
Source  KubeEdge EdgeCore v1alpha2, ``modules.edged`` and its ``tailoredKubeletConfig``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from edgesite.kube.quantity import parse
from edgesite.kube.times import parse_duration

__all__ = ["EdgedSettings"]

DEFAULT_ENDPOINT: Final = "unix:///run/containerd/containerd.sock"


@dataclass(slots=True)
class EdgedSettings:
    """Defaults are KubeEdge's, except where a comment says why not. All parts of one run of edged share the object and read it when they
    need it, for what is taken over while they run (`reload.py`); nobody else changes it."""

    runtime: str = "auto"
    runtime_endpoint: str = DEFAULT_ENDPOINT
    image_endpoint: str = ""
    runtime_request_timeout_s: float = 120.0
    root: Path | None = None  #: of pods' volumes; None: in the role's data directory
    logs_root: Path | None = None
    node_ip: str = ""
    register_node: bool = True
    register_schedulable: bool = True
    node_labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, Any], ...] = ()
    max_pods: int = 110
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = ""
    resolv_conf: str = "/etc/resolv.conf"
    status_report_s: float = 300.0
    status_update_s: float = 10.0
    lease_duration_s: int = 40
    serialize_image_pulls: bool = True
    cgroup_driver: str = "cgroupfs"
    cgroups_per_qos: bool = True
    cgroup_root: str = ""
    cpu_cfs_quota: bool = True
    cpu_cfs_period_us: int = 100_000
    pod_pids_limit: int = -1
    enforce_allocatable: bool = True  #: pods together get no memory that is reserved
    fail_swap_on: bool = False
    swap_behavior: str = ""  #: NoSwap, LimitedSwap; "" leaves containers to the host
    port: int = 10350
    reserved: tuple[Mapping[str, str], ...] = ()  #: systemReserved and kubeReserved
    eviction_hard: Mapping[str, str] = field(default_factory=dict)
    eviction_soft: Mapping[str, str] = field(default_factory=dict)
    eviction_soft_grace: Mapping[str, str] = field(default_factory=dict)
    eviction_reclaim: Mapping[str, str] = field(default_factory=dict)
    eviction_transition_s: float = 300.0
    eviction_max_grace_s: float = 0.0
    image_gc_high_percent: int = 80
    image_gc_low_percent: int = 40
    image_minimum_gc_age_s: float = 120.0
    static_pods: Path | None = None  #: folder of their files
    file_check_s: float = 20.0
    allowed_sysctls: tuple[str, ...] = ()
    sandbox_image: str = "kubeedge/pause:3.1"
    max_dead_containers: int = 1  #: of one name, kept for their log and as lastState; below 0: all
    max_dead_containers_of_all: int = -1  #: on the node; below 0: no bound
    dead_container_age_s: float = 0.0  #: that an ended container has from when it was made, before it may be removed
    keep_volumes: bool = False  #: of pods that have ended and are not deleted
    max_images_reported: int = 50
    log_max_bytes: int = 10 << 20
    log_max_files: int = 5
    seccomp_default: bool = False
    seccomp_root: str = "/var/lib/edged/seccomp"
    interface: str = ""
    shutdown_grace_s: float = 0.0  #: for all pods when the host shuts down; 0: they are not waited for
    shutdown_critical_s: float = 0.0  #: of it, for critical pods
    credential_config: Path | None = None  #: file of credential providers
    credential_programs: Path | None = None  #: folder of their programs
    device_plugins: Path | None = None  #: folder of their sockets; None: below the root
    pod_resources: Path | None = None  #: folder of the socket that tells of devices; None: below the root
    event_rate: float = 5.0  #: a second; 0: no limit
    event_burst: int = 10
    master_namespace: str = "default"  #: of the service of the API

    def take_over(self, newer: EdgedSettings) -> None:
        """Become like the other."""
        for one in fields(self):
            setattr(self, one.name, getattr(newer, one.name))

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> EdgedSettings:
        """Read ``modules.edged``; absent members keep their defaults. Raises InvalidTime, InvalidQuantity."""
        kubelet = section.get("tailoredKubeletConfig") or {}
        root = section.get("rootDirectory") or ""
        logs = section.get("podLogsDirectory") or ""
        taints = kubelet.get("registerWithTaints") or section.get("registerWithTaints") or ()
        endpoint = section.get("remoteRuntimeEndpoint") or kubelet.get("containerRuntimeEndpoint")
        return cls(
            runtime=section.get("runtime") or "auto",
            runtime_endpoint=endpoint or DEFAULT_ENDPOINT,
            image_endpoint=section.get("remoteImageEndpoint") or kubelet.get("imageServiceEndpoint") or "",
            runtime_request_timeout_s=parse_duration(kubelet.get("runtimeRequestTimeout", "2m0s")),
            root=Path(root) if root else None,
            logs_root=Path(logs) if logs else None,
            node_ip=section.get("nodeIP") or "",
            register_node=bool(section.get("registerNode", True)) and kubelet.get("registerNode") is not False,
            register_schedulable=bool(section.get("registerSchedulable", True)),
            node_labels=dict(section.get("nodeLabels") or {}),
            taints=tuple(dict(one) for one in taints),
            max_pods=kubelet.get("maxPods", 110),
            cluster_dns=tuple(kubelet.get("clusterDNS") or ()),
            cluster_domain=kubelet.get("clusterDomain") or "",
            resolv_conf=kubelet.get("resolvConf", "/etc/resolv.conf"),
            status_report_s=parse_duration(kubelet.get("nodeStatusReportFrequency", "5m0s")),
            status_update_s=parse_duration(kubelet.get("nodeStatusUpdateFrequency", "10s")),
            lease_duration_s=kubelet.get("nodeLeaseDurationSeconds", 40),
            serialize_image_pulls=bool(kubelet.get("serializeImagePulls", True)),
            cgroup_driver=kubelet.get("cgroupDriver", "cgroupfs"),
            cgroups_per_qos=bool(kubelet.get("cgroupsPerQOS", True)),
            cgroup_root=kubelet.get("cgroupRoot") or "",
            cpu_cfs_quota=bool(kubelet.get("cpuCFSQuota", True)),
            fail_swap_on=bool(kubelet.get("failSwapOn", False)),
            swap_behavior=(kubelet.get("memorySwap") or {}).get("swapBehavior") or "",
            enforce_allocatable="pods" in kubelet.get("enforceNodeAllocatable", ("pods",)),
            pod_pids_limit=kubelet.get("podPidsLimit", -1),
            cpu_cfs_period_us=round(parse_duration(kubelet.get("cpuCFSQuotaPeriod", "100ms")) * 1e6),
            event_rate=float(kubelet.get("eventRecordQPS", 5)),
            event_burst=int(kubelet.get("eventBurst", 10)),
            port=kubelet.get("port") or kubelet.get("readOnlyPort", 10350),
            reserved=tuple(dict(kubelet.get(name) or {}) for name in ("systemReserved", "kubeReserved")),
            eviction_hard=dict(kubelet.get("evictionHard") or {}),
            eviction_soft=dict(kubelet.get("evictionSoft") or {}),
            eviction_soft_grace=dict(kubelet.get("evictionSoftGracePeriod") or {}),
            eviction_reclaim=dict(kubelet.get("evictionMinimumReclaim") or {}),
            eviction_transition_s=parse_duration(kubelet.get("evictionPressureTransitionPeriod", "5m0s")),
            eviction_max_grace_s=float(kubelet.get("evictionMaxPodGracePeriod", 0)),
            image_gc_high_percent=kubelet.get("imageGCHighThresholdPercent", 80),
            image_gc_low_percent=kubelet.get("imageGCLowThresholdPercent", 40),
            image_minimum_gc_age_s=parse_duration(kubelet.get("imageMinimumGCAge", "2m0s")),
            static_pods=Path(kubelet["staticPodPath"]) if kubelet.get("staticPodPath") else None,
            file_check_s=parse_duration(kubelet.get("fileCheckFrequency", "20s")),
            allowed_sysctls=tuple(kubelet.get("allowedUnsafeSysctls") or ()),
            sandbox_image=section.get("podSandboxImage") or "kubeedge/pause:3.1",
            max_dead_containers=section.get("maxPerPodContainerCount", 1),
            max_dead_containers_of_all=section.get("maxContainerCount", -1),
            dead_container_age_s=parse_duration(section.get("minimumGCAge", "0s")),
            keep_volumes=bool(section.get("keepTerminatedPodVolumes", False)),
            max_images_reported=kubelet.get("nodeStatusMaxImages", 50),
            log_max_bytes=parse(kubelet.get("containerLogMaxSize", "10Mi")).value(),
            log_max_files=kubelet.get("containerLogMaxFiles", 5),
            seccomp_default=bool(section.get("seccompDefault") or kubelet.get("seccompDefault", False)),
            seccomp_root=section.get("seccompProfileRoot") or "/var/lib/edged/seccomp",
            shutdown_grace_s=parse_duration(kubelet.get("shutdownGracePeriod", "0s")),
            shutdown_critical_s=parse_duration(kubelet.get("shutdownGracePeriodCriticalPods", "0s")),
            interface=section.get("customInterfaceName") or "",
            credential_config=_path(section.get("imageCredentialProviderConfigFile")),
            credential_programs=_path(section.get("imageCredentialProviderBinDir")),
            device_plugins=_path(section.get("devicePluginsDirectory")),
            pod_resources=_path(section.get("podResourcesDirectory")),
            master_namespace=section.get("masterServiceNamespace") or "default",
        )


def _path(text: Any) -> Path | None:
    return Path(text) if text else None
