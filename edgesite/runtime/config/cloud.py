"""CloudCore, ``cloudcore.config.kubeedge.io/v1alpha1``, and the few switches that are ours.

Names, types and defaults are KubeEdge v1.12's, so that its files load unchanged. Members that only newer releases have are
accepted and listed in `IGNORED`, those that only older ones have in `FORMER`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from edgesite.runtime.config.base import Model, Port
from edgesite.runtime.config.logs import ProcessLogging

__all__ = ["FORMER", "IGNORED", "CloudCore"]

CA = "/etc/kubeedge/ca/rootCA.crt"
CA_KEY = "/etc/kubeedge/ca/rootCA.key"
CERT = "/etc/kubeedge/certs/server.crt"
KEY = "/etc/kubeedge/certs/server.key"

#: Members of newer releases that have no meaning here: accepted with a warning.
IGNORED = frozenset(
    {
        "modules.cloudHub.authorization",
        "modules.policyController",
    }
)
#: Members of releases before v1.12, for which the same holds.
FORMER = frozenset({"leaderelection", "modules.deviceController.context", "modules.edgeController.context"})


def _ip(text: str) -> str:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be a valid IP address, (e.g. 10.9.8.7)") from None
    return text


def _unix(text: str) -> str:
    if not text.startswith("unix://"):
        raise ValueError("unixSocketAddress must has prefix unix://")
    return text


Ip = Annotated[str, AfterValidator(_ip)]


class MonitorServer(Model):
    bindAddress: str = Field(
        "", description="host:port of /healthz, /livez, /readyz and /metrics, plain HTTP; none if empty"
    )
    enableProfiling: bool = False

    @field_validator("bindAddress")
    @classmethod
    def _host_and_port(cls, text: str) -> str:
        _, colon, port = text.rpartition(":")
        if text and not (colon and port.isdecimal() and 1 <= int(port) <= 65535):
            raise ValueError("must be host:port")
        return text


class CommonConfig(Model):
    tunnelPort: int = 10350
    monitorServer: MonitorServer = MonitorServer()


class KubeAPIConfig(Model):
    master: str = ""
    contentType: str = "application/vnd.kubernetes.protobuf"
    qps: int = 100
    burst: int = 200
    kubeConfig: str = ""

    @model_validator(mode="after")
    def _absolute(self) -> KubeAPIConfig:
        if self.kubeConfig and not self.kubeConfig.startswith("/"):
            raise ValueError("kubeconfig need abs path")
        return self


class Quic(Model):
    enable: bool = False
    address: Ip = "0.0.0.0"
    port: Port = 10001
    maxIncomingStreams: int = 10000


class UnixSocket(Model):
    enable: bool = True
    address: Annotated[str, AfterValidator(_unix)] = "unix:///var/lib/kubeedge/kubeedge.sock"


class WebSocket(Model):
    enable: bool = True
    address: Ip = "0.0.0.0"
    port: Port = 10000


class Https(Model):
    enable: bool = True
    address: Ip = "0.0.0.0"
    port: Port = 10002


class CloudHub(Model):
    enable: bool = True
    keepaliveInterval: int = Field(30, ge=1, description="seconds of silence after which a node counts as lost")
    nodeLimit: int = Field(1000, ge=1)
    rejoin: Literal["open", "strict"] = Field(
        "open",
        description="ours: whether a join token for any node replaces the certificate of a node that is not there",
    )
    tlsCAFile: str = CA
    tlsCAKeyFile: str = CA_KEY
    tlsCertFile: str = CERT
    tlsPrivateKeyFile: str = KEY
    writeTimeout: int = 30
    quic: Quic = Quic()
    unixsocket: UnixSocket = UnixSocket()
    websocket: WebSocket = WebSocket()
    https: Https = Https()
    advertiseAddress: list[str] = Field(default_factory=list)
    dnsNames: list[str] = Field(default_factory=lambda: [""])
    edgeCertSigningDuration: int = Field(365, gt=0, description="days")
    tokenRefreshDuration: int = Field(12, gt=0, description="hours; must be positive")


class EdgeControllerBuffer(Model):
    updatePodStatus: int = 1024
    updateNodeStatus: int = 1024
    queryConfigMap: int = 1024
    querySecret: int = 1024
    queryService: int = 1024
    queryEndpoints: int = 1024
    queryPersistentVolume: int = 1024
    queryPersistentVolumeClaim: int = 1024
    queryVolumeAttachment: int = 1024
    createNode: int = 1024
    patchNode: int = 1024
    queryNode: int = 1024
    updateNode: int = 1024
    patchPod: int = 1024
    deletePod: int = 1024
    createPod: int = 1024
    createLease: int = 1024
    queryLease: int = 1024
    serviceAccountToken: int = 1024
    processEvent: int = 1024
    certificateSigningRequest: int = 1024
    podEvent: int = 1
    configMapEvent: int = 1
    secretEvent: int = 1
    serviceEvent: int = 1
    endpointsEvent: int = 1
    rulesEvent: int = 1
    ruleEndpointsEvent: int = 1


class EdgeControllerLoad(Model):
    updatePodStatusWorkers: int = 1
    updateNodeStatusWorkers: int = 1
    queryConfigMapWorkers: int = 4
    querySecretWorkers: int = 4
    queryServiceWorkers: int = 4
    queryEndpointsWorkers: int = 4
    queryPersistentVolumeWorkers: int = 4
    queryPersistentVolumeClaimWorkers: int = 4
    queryVolumeAttachmentWorkers: int = 4
    createNodeWorkers: int = 4
    patchNodeWorkers: int = 4
    queryNodeWorkers: int = 4
    updateNodeWorkers: int = 4
    patchPodWorkers: int = 4
    deletePodWorkers: int = 4
    createPodWorkers: int = 4
    createLeaseWorkers: int = 4
    queryLeaseWorkers: int = 4
    processEventWorkers: int = 4
    certificateSigningRequestWorkers: int = 4
    UpdateRuleStatusWorkers: int = 4
    ServiceAccountTokenWorkers: int = 4


class EdgeController(Model):
    enable: bool = True
    nodeUpdateFrequency: int = Field(10, gt=0, description="seconds")
    buffer: EdgeControllerBuffer = EdgeControllerBuffer()
    load: EdgeControllerLoad = EdgeControllerLoad()


class DeviceControllerBuffer(Model):
    updateDeviceStatus: int = 1024
    updateDeviceTwins: int = 1024
    deviceEvent: int = 1
    deviceModelEvent: int = 1
    deviceStatusEvent: int = 1


class DeviceControllerLoad(Model):
    updateDeviceStatusWorkers: int = 1


class DeviceController(Model):
    enable: bool = True
    buffer: DeviceControllerBuffer = DeviceControllerBuffer()
    load: DeviceControllerLoad = DeviceControllerLoad()


class UpgradeBuffer(Model):
    updateNodeUpgradeJobStatus: int = 1024
    nodeUpgradeJobEvent: int = 1


class UpgradeLoad(Model):
    nodeUpgradeJobWorkers: int = 1


class NodeUpgradeJobController(Model):
    enable: bool = False
    buffer: UpgradeBuffer = UpgradeBuffer()
    load: UpgradeLoad = UpgradeLoad()


class TaskBuffer(Model):
    taskStatus: int = 1024
    taskEvent: int = 1


class TaskLoad(Model):
    taskWorkers: int = 1


class TaskManager(Model):
    """KubeEdge since v1.16: the same for more kinds of jobs."""

    enable: bool = Field(False, description="carry out NodeUpgradeJobs and ImagePrePullJobs")
    buffer: TaskBuffer = TaskBuffer()
    load: TaskLoad = TaskLoad()


class SyncController(Model):
    enable: bool = True


class DynamicController(Model):
    enable: bool = False
    impersonateNodes: bool = Field(
        False, description="act with the rights of the asking node, not with our own, for requests that carry no token"
    )


class CloudStream(Model):
    enable: bool = Field(True, description="on by default here, so that kubectl logs works; KubeEdge has it off")
    tlsTunnelCAFile: str = CA
    tlsTunnelCertFile: str = CERT
    tlsTunnelPrivateKeyFile: str = KEY
    tunnelPort: Port = 10004
    tlsStreamCAFile: str = "/etc/kubeedge/ca/streamCA.crt"
    tlsStreamCertFile: str = "/etc/kubeedge/certs/stream.crt"
    tlsStreamPrivateKeyFile: str = "/etc/kubeedge/certs/stream.key"
    streamPort: Port = 10003


class Router(Model):
    enable: bool = False
    address: str = "0.0.0.0"
    port: Port = 9443
    restTimeout: int = 60


class WebhookService(Model):
    """A Service that leads API servers to the webhooks. KubeEdge's is named kubeedge-admission-service."""

    namespace: str = "kubeedge"
    name: str = ""
    port: Port = 443


class Admission(Model):
    """Ours: webhooks for devices on a cluster's API, in the place of KubeEdge's program ``admission``."""

    enable: bool = Field(True, description="only where the API is a cluster's, once --install-crds has been run")
    address: Ip = "0.0.0.0"
    port: Port = 10443
    url: str = Field("", description="https://HOST:PORT by which the cluster's API servers reach this port")
    service: WebhookService = Field(WebhookService(), description="or a Service of the cluster that leads here")
    failurePolicy: Literal["Ignore", "Fail"] = Field(
        "Ignore",
        description="whether devices are taken unchecked (Ignore) or refused (Fail) while the webhooks are away",
    )


class IptablesManager(Model):
    enable: bool = True
    mode: Literal["internal", "external"] = "internal"


class Switch(Model):
    """A module of the embedded control plane; it runs only beside the embedded API server."""

    enable: bool = True


class NodeLifecycle(Switch):
    monitorGracePeriod: int = Field(40, ge=5, description="seconds without a lease until NotReady")
    evictEdgePods: bool = Field(False, description="evict pods of unreachable edge nodes as on ordinary nodes")


class CloudModules(Model):
    cloudHub: CloudHub = CloudHub()
    edgeController: EdgeController = EdgeController()
    deviceController: DeviceController = DeviceController()
    nodeUpgradeJobController: NodeUpgradeJobController = NodeUpgradeJobController()
    taskManager: TaskManager = TaskManager()
    syncController: SyncController = SyncController()
    dynamicController: DynamicController = DynamicController()
    cloudStream: CloudStream = CloudStream()
    router: Router = Router()
    iptablesManager: IptablesManager = IptablesManager()
    admission: Admission = Admission()
    scheduler: Switch = Switch()
    deployment: Switch = Switch()
    replicaSet: Switch = Switch()
    daemonSet: Switch = Switch()
    statefulSet: Switch = Switch()
    job: Switch = Switch()
    namespace: Switch = Switch()
    garbageCollector: Switch = Switch()
    endpoints: Switch = Switch()
    endpointSlice: Switch = Switch()
    nodeLifecycle: NodeLifecycle = NodeLifecycle()
    serviceAccount: Switch = Switch()
    podGC: Switch = Switch()


class CloudCore(Model):
    apiVersion: str = "cloudcore.config.kubeedge.io/v1alpha1"
    kind: str = "CloudCore"
    commonConfig: CommonConfig = CommonConfig()
    kubeAPIConfig: KubeAPIConfig = KubeAPIConfig()
    featureGates: dict[str, bool] = Field(default_factory=dict)
    logging: ProcessLogging = ProcessLogging()
    modules: CloudModules = CloudModules()
