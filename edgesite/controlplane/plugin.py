"""Plugin ``controlplane``: the controllers that a Kubernetes control plane has, for use with the embedded API server.

Where the API is a cluster's own, so are the controllers: then this is the way to that API only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.context import Module, Settings


@impl
def edgesite_modules(settings: Settings) -> Iterable[type[Module]]:
    if settings.cloud is None:
        return []
    if settings.api is None or not settings.api.get("enable", True):
        from edgesite.client.kubeapi import KubeApiModule

        return [KubeApiModule]
    from edgesite.controlplane.certificates.module import CertificatesModule
    from edgesite.controlplane.cluster import InformersModule
    from edgesite.controlplane.clusterroles import ClusterRoleModule
    from edgesite.controlplane.daemonset.module import DaemonSetModule
    from edgesite.controlplane.deployment.module import DeploymentModule
    from edgesite.controlplane.endpoints.module import EndpointSliceModule, EndpointsModule
    from edgesite.controlplane.garbagecollector.module import GarbageCollectorModule
    from edgesite.controlplane.job.module import JobModule
    from edgesite.controlplane.namespaces import NamespaceModule
    from edgesite.controlplane.nodelifecycle.module import NodeLifecycleModule
    from edgesite.controlplane.persistentvolumes.ephemeral import EphemeralVolumeModule
    from edgesite.controlplane.persistentvolumes.module import PersistentVolumeModule
    from edgesite.controlplane.persistentvolumes.protection import StorageProtectionModule
    from edgesite.controlplane.replicaset.module import ReplicaSetModule, ReplicationControllerModule
    from edgesite.controlplane.scheduler.module import SchedulerModule
    from edgesite.controlplane.serviceaccounts import ServiceAccountModule
    from edgesite.controlplane.serviceaccounttokens import TokenSecretModule
    from edgesite.controlplane.statefulset.module import StatefulSetModule
    from edgesite.controlplane.volumeattachments.module import AttachModule

    return [
        InformersModule,
        SchedulerModule,
        ReplicaSetModule,
        ReplicationControllerModule,
        DeploymentModule,
        DaemonSetModule,
        StatefulSetModule,
        JobModule,
        EndpointsModule,
        EndpointSliceModule,
        NodeLifecycleModule,
        ServiceAccountModule,
        TokenSecretModule,
        ClusterRoleModule,
        NamespaceModule,
        PersistentVolumeModule,
        EphemeralVolumeModule,
        StorageProtectionModule,
        AttachModule,
        CertificatesModule,
        GarbageCollectorModule,
    ]
