"""EdgeCore, ``edgecore.config.kubeedge.io/v1alpha2``: names, types and defaults of KubeEdge v1.12, and a few of ours.

Members that only newer releases have are accepted and listed in `IGNORED`, those that only older ones have in `FORMER`; v1alpha1 files are converted (`convert_v1alpha1`).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from edgesite.runtime.config.base import Model, Port
from edgesite.runtime.config.edged import Edged
from edgesite.runtime.config.logs import ProcessLogging

__all__ = ["FORMER", "IGNORED", "EdgeCore", "convert_v1alpha1"]

CA = "/etc/kubeedge/ca/rootCA.crt"
CERT = "/etc/kubeedge/certs/server.crt"
KEY = "/etc/kubeedge/certs/server.key"

#: Members of newer releases that have no meaning here: accepted with a warning.
IGNORED = frozenset(
    {
        "edgecoreVersion",
        "modules.edged.reportEvent",
        "modules.taskManager",
        "modules.metaManager.metaServer.serviceAccountIssuers",
        "modules.metaManager.metaServer.serviceAccountKeyFiles",
    }
)
#: Members of releases before v1.12, for which the same holds. The mesh has become EdgeMesh, a product of its own.
FORMER = frozenset(
    {"modules.edgeMesh", "modules.metaManager.metaServer.debug", "modules.metaManager.podStatusSyncInterval"}
)


class Database(Model):
    driverName: str = "sqlite3"
    aliasName: str = "default"
    dataSource: str = "/var/lib/kubeedge/edgecore.db"


class HubQuic(Model):
    enable: bool = False
    handshakeTimeout: int = 30
    readDeadline: int = 15
    server: str = ""
    writeDeadline: int = 15


class HubWebSocket(Model):
    enable: bool = True
    handshakeTimeout: int = 30
    readDeadline: int = 15
    server: str = ""
    writeDeadline: int = 15


class EdgeHub(Model):
    enable: bool = True
    heartbeat: int = Field(15, ge=1, description="seconds between keepalives")
    messageQPS: int = Field(30, ge=0)
    messageBurst: int = Field(60, ge=0)
    projectID: str = "e632aba927ea4ac2b575ec1603d56f10"
    tlsCaFile: str = CA
    tlsCertFile: str = CERT
    tlsPrivateKeyFile: str = KEY
    quic: HubQuic = HubQuic()
    websocket: HubWebSocket = HubWebSocket()
    token: str = ""
    httpServer: str = ""
    rotateCertificates: bool = True
    proxy: str = Field(
        "", description="ours: http://, https:// or socks5://[USER:PASSWORD@]HOST:PORT on the way to the cloud"
    )

    @model_validator(mode="after")
    def _one_transport(self) -> EdgeHub:
        # Both at once is ours: QUIC where it gets through, else WebSocket.
        if self.enable and not self.websocket.enable and not self.quic.enable:
            raise ValueError("websocket.enable and quic.enable cannot be true and false at the same time")
        return self


class EventBusTLS(Model):
    enable: bool = False
    tlsMqttCAFile: str = CA
    tlsMqttCertFile: str = CERT
    tlsMqttPrivateKeyFile: str = KEY


class EmbeddedBroker(Model):
    """Ours: KubeEdge's internal broker knows nobody and keeps nothing."""

    passwordFile: str = Field("", description="users, as mosquitto_passwd writes them")
    aclFile: str = Field("", description="who may publish and read what, in mosquitto's grammar")
    allowAnonymous: bool | None = Field(
        None, description="clients without a name; default: from this host alone, and only without passwordFile"
    )
    useIdentityAsUsername: bool = Field(False, description="the common name of a client certificate is the user")
    certFile: str = Field("", description="certificate for ssl:// addresses")
    keyFile: str = ""
    caFile: str = Field("", description="CA of client certificates")
    requireCertificate: bool = False
    maxConnections: int = Field(1000, ge=1, le=100_000)
    maxPacketBytes: int = Field(4 << 20, ge=1024, le=256 << 20)
    maxQueuedMessages: int = Field(1000, ge=1, le=65_000, description="for a client that is connected but slow")

    @model_validator(mode="after")
    def _pairs(self) -> EmbeddedBroker:
        if self.requireCertificate and not self.caFile:
            raise ValueError("requireCertificate needs caFile")
        return self


class EventBus(Model):
    enable: bool = True
    mqttQOS: int = Field(0, ge=0, le=2)
    mqttRetain: bool = False
    mqttSessionQueueSize: int = Field(100, ge=1, le=65_000)
    mqttServerInternal: str = "tcp://127.0.0.1:1884"
    mqttServerExternal: str = "tcp://127.0.0.1:1883"
    mqttSubClientID: str = ""
    mqttPubClientID: str = ""
    mqttUsername: str = ""
    mqttPassword: str = ""
    mqttMode: int = Field(2, ge=0, le=2, description="0 internal broker, 1 both, 2 external only; need in [0,2] range")
    eventBusTLS: EventBusTLS = EventBusTLS()
    broker: EmbeddedBroker = EmbeddedBroker()


class MetaServer(Model):
    enable: bool = False
    server: str = "127.0.0.1:10550"
    tlsCaFile: str = CA
    tlsCertFile: str = CERT
    tlsPrivateKeyFile: str = KEY
    apiAudiences: list[str] = Field([], description="audiences of which a token must have one; none: those of the API")
    dummyServer: str = Field(
        "169.254.30.10:10550", description="served beside server with requireAuthorization, on dummyInterface"
    )
    dummyInterface: str = Field(
        "edge-dummy0",
        description="interface that is given the address of dummyServer; empty: the address is there already",
    )
    offlineTokenMinutes: float = Field(
        0,
        ge=0,
        description="how long before the link was lost a token may have been reviewed to be taken without one; 0: refused",
    )
    podServer: str = Field(
        "",
        description="address of MetaServer that pods are told as that of the API; empty: pods are told the cluster's",
    )


class MetaManager(Model):
    enable: bool = True
    contextSendGroup: str = "hub"
    contextSendModule: str = "websocket"
    remoteQueryTimeout: int = 60
    metaServer: MetaServer = MetaServer()


class ServiceBus(Model):
    enable: bool = False
    server: str = "127.0.0.1"
    port: Port = 9060
    timeout: int = 60


class DeviceTwin(Model):
    enable: bool = True
    dmiSockPath: str = Field(
        "/etc/kubeedge/",
        description="folder of dmi.sock, or its path; edgesite: in the data directory",
    )
    reportBitsPerSecond: int = Field(
        12_000,
        ge=0,
        description="how much reports of devices may send to the cloud, on average; 0: no limit. Of values that wait, the newest is sent",
    )
    dmiReportsPerSecond: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        description="ours: calls by which mappers report; KubeEdge takes one a second after the first hundred",
    )


class Mappers(Model):
    """Ours: drivers of devices that run within this process (docs/mappers.md)."""

    enable: bool = True
    outOfProcess: list[str] = Field(
        default_factory=lambda: ["opcua"],  # its library takes 38 MB
        description="protocols whose devices are left to mappers of their own, although a plugin here has a driver",
    )
    httpAddress: str = Field(
        "", description='where these devices are read and written by HTTP, as 127.0.0.1:7777; "": nowhere'
    )


class DBTest(Model):
    enable: bool = False


class EdgeStream(Model):
    enable: bool = Field(True, description="on by default here, so that kubectl logs works; KubeEdge has it off")
    tlsTunnelCAFile: str = CA
    tlsTunnelCertFile: str = CERT
    tlsTunnelPrivateKeyFile: str = KEY
    handshakeTimeout: int = 30
    readDeadline: int = 15
    server: str = ""
    writeDeadline: int = 15


class EdgeModules(Model):
    edged: Edged = Edged()
    edgeHub: EdgeHub = EdgeHub()
    eventBus: EventBus = EventBus()
    metaManager: MetaManager = MetaManager()
    serviceBus: ServiceBus = ServiceBus()
    deviceTwin: DeviceTwin = DeviceTwin()
    mappers: Mappers = Mappers()
    dbTest: DBTest = DBTest()
    edgeStream: EdgeStream = EdgeStream()


class EdgeCore(Model):
    apiVersion: str = "edgecore.config.kubeedge.io/v1alpha2"
    kind: str = "EdgeCore"
    database: Database = Database()
    featureGates: dict[str, bool] = Field(default_factory=dict)
    logging: ProcessLogging = ProcessLogging()
    modules: EdgeModules = EdgeModules()


#: v1alpha1 member of ``modules.edged`` → where v1alpha2 has it; None where nothing took its place.
_MOVED: dict[str, str | None] = {
    "labels": "nodeLabels",
    "annotations": None,
    "taints": "registerWithTaints",
    "nodeStatusUpdateFrequency": "tailoredKubeletConfig.nodeStatusUpdateFrequency",
    "runtimeType": "containerRuntime",
    "dockerAddress": "dockerEndpoint",
    "clusterDNS": "tailoredKubeletConfig.clusterDNS",
    "clusterDomain": "tailoredKubeletConfig.clusterDomain",
    "edgedMemoryCapacity": None,
    "runtimeRequestTimeout": "tailoredKubeletConfig.runtimeRequestTimeout",
    "concurrentConsumers": None,
    "devicePluginEnabled": None,
    "gpuPluginEnabled": None,
    "imageGCHighThreshold": "tailoredKubeletConfig.imageGCHighThresholdPercent",
    "imageGCLowThreshold": "tailoredKubeletConfig.imageGCLowThresholdPercent",
    "maximumDeadContainersPerPod": "maxPerPodContainerCount",
    "cgroupDriver": "tailoredKubeletConfig.cgroupDriver",
    "cgroupsPerQOS": "tailoredKubeletConfig.cgroupsPerQOS",
    "cgroupRoot": "tailoredKubeletConfig.cgroupRoot",
    "edgeCoreCgroups": "tailoredKubeletConfig.kubeletCgroups",
    "systemCgroups": "tailoredKubeletConfig.systemCgroups",
    "cniCacheDirs": "cniCacheDir",
    "volumeStatsAggPeriod": "tailoredKubeletConfig.volumeStatsAggPeriod",
    "enableMetrics": None,
}


def convert_v1alpha1(raw: dict[str, Any]) -> list[str]:
    """Rewrite an EdgeCore v1alpha1 file (KubeEdge up to 1.11) in place; return one sentence per member that moved or went."""
    edged = (raw.get("modules") or {}).get("edged")
    if not isinstance(edged, dict) or not str(raw.get("apiVersion", "")).endswith("/v1alpha1"):
        return []
    raw["apiVersion"] = "edgecore.config.kubeedge.io/v1alpha2"
    said = []
    for old in [name for name in edged if name in _MOVED]:
        value, target = edged.pop(old), _MOVED[old]
        if target is None:
            said.append(f"modules.edged.{old} has no meaning any more and is not used")
            continue
        if old == "imagePullProgressDeadline" or (old == "nodeStatusUpdateFrequency" and isinstance(value, int)):
            value = f"{value}s"
        elif old == "runtimeRequestTimeout" and isinstance(value, int):
            value = f"{value}m0s"
        elif old == "volumeStatsAggPeriod" and isinstance(value, int):
            value = f"{value // 1_000_000_000}s"
        elif old == "clusterDNS" and isinstance(value, str):
            value = [value] if value else []
        place: dict[str, Any] = edged
        *parents, last = target.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place.setdefault(last, value)
        said.append(f"modules.edged.{old} is modules.edged.{target} since v1alpha2")
    if isinstance(edged.get("imagePullProgressDeadline"), int):
        edged["imagePullProgressDeadline"] = f"{edged['imagePullProgressDeadline']}s"
    return said
