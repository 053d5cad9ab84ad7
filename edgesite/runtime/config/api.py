"""Section ``api``: the embedded API server. Ours alone; KubeEdge has none."""

from __future__ import annotations

from pydantic import Field

from edgesite.runtime.config.base import Duration, Model

__all__ = ["Api"]


class Api(Model):
    enable: bool = Field(True, description="serve the embedded API; false when kubeAPIConfig names a cluster")
    address: str = Field("127.0.0.1:6443", description="host:port to listen on, always with TLS")
    advertiseAddress: str = Field("", description="address that clients elsewhere use; also in the certificate")
    certSANs: list[str] = Field(default_factory=list, description="further names and IPs in the server certificate")
    adminKubeconfig: str = Field("", description="where admin.kubeconfig is written; default: in the data directory")
    tokenAuthFile: str = Field("", description="CSV of token,user,uid[,groups] for static bearer tokens")
    serviceAccountIssuers: list[str] = Field(
        default_factory=lambda: ["https://kubernetes.default.svc.cluster.local"],
        min_length=1,
        description="who issues service account tokens; further ones are accepted only",
    )
    serviceAccountKeyFiles: list[str] = Field(
        default_factory=list, description="PEM files of RSA keys that verify service account tokens, too"
    )
    apiAudiences: list[str] = Field(
        default_factory=list, description="audiences of tokens for this API; default: the issuers"
    )
    serviceAccountMaxTokenExpiration: Duration = Field("0s", description="longest life of a token; 0s: no bound")
    serviceAccountExtendTokenExpiration: bool = Field(
        True, description="let the tokens of pods last a year, for clients that read them once"
    )
    clusterName: str = "edgesite"
    serviceClusterIPRange: str = "10.96.0.0/16"
    serviceNodePortRange: str = "30000-32767"
    maxRequestBytes: int = Field(3 * 1024 * 1024, ge=1024)
    maxRequestsInFlight: int = Field(400, ge=1)
    maxConnections: int = Field(2000, ge=1)
    eventTTL: Duration = "1h"
    historyRetention: Duration = Field("5m0s", description="how long a watch may resume from an old revision")
    leaseSnapshotInterval: Duration = Field("5m0s", description="how often leases reach the disk")
