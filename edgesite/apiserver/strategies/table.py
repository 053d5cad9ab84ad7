"""Which kind has which strategy. Kinds that are not named here have the default one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgesite.apiserver.strategies.base import Strategy
from edgesite.apiserver.strategies.namespaces import NamespaceStrategy
from edgesite.apiserver.strategies.pods import PodStrategy
from edgesite.apiserver.strategies.services import ServiceStrategy
from edgesite.apiserver.strategies.signing import SigningRequestStrategy
from edgesite.apiserver.strategies.simple import (
    DefinitionStrategy,
    DeploymentStrategy,
    EventStrategy,
    JobStrategy,
    NodeStrategy,
    PhaseStrategy,
    SecretStrategy,
    WorkloadStrategy,
)

__all__ = ["strategy_of"]

_RBAC: Final = "rbac.authorization.k8s.io"
_MAKERS: Final[dict[tuple[str, str], Callable[[], Strategy]]] = {
    ("", "pods"): PodStrategy,
    ("", "namespaces"): NamespaceStrategy,
    ("", "services"): ServiceStrategy,
    ("", "nodes"): NodeStrategy,
    ("", "secrets"): SecretStrategy,
    ("", "events"): EventStrategy,
    ("", "endpoints"): lambda: Strategy(create_on_update=True),
    ("", "limitranges"): lambda: Strategy(create_on_update=True),
    ("", "podtemplates"): lambda: Strategy(create_on_update=True, returns_deleted=True),
    ("", "resourcequotas"): lambda: Strategy(create_on_update=True, returns_deleted=True),
    ("", "serviceaccounts"): lambda: Strategy(returns_deleted=True),
    ("", "persistentvolumes"): PhaseStrategy,
    ("", "persistentvolumeclaims"): PhaseStrategy,
    ("", "replicationcontrollers"): lambda: WorkloadStrategy(default_propagation="Orphan"),
    ("apps", "deployments"): DeploymentStrategy,
    ("apps", "replicasets"): WorkloadStrategy,
    ("apps", "statefulsets"): WorkloadStrategy,
    ("apps", "daemonsets"): WorkloadStrategy,
    ("batch", "jobs"): JobStrategy,
    ("batch", "cronjobs"): WorkloadStrategy,
    ("coordination.k8s.io", "leases"): lambda: Strategy(
        volatile=True, create_on_update=True, unconditional_update=False
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): SigningRequestStrategy,
    (_RBAC, "roles"): lambda: Strategy(create_on_update=True),
    (_RBAC, "rolebindings"): lambda: Strategy(create_on_update=True),
    (_RBAC, "clusterroles"): lambda: Strategy(create_on_update=True),
    (_RBAC, "clusterrolebindings"): lambda: Strategy(create_on_update=True),
    ("apiextensions.k8s.io", "customresourcedefinitions"): DefinitionStrategy,
}


def strategy_of(group: str, plural: str) -> Strategy:
    """Make the strategy of a resource."""
    maker = _MAKERS.get((group, plural))
    return maker() if maker is not None else Strategy()
