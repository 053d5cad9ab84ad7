"""The RBAC authorizer: decisions from an index that follows the store, and what it guards: nobody grants more than they hold.

Errors  ApiError Forbidden from `EscalationGuard`. Decisions do not raise.
State   The index, brought up to what the store has committed before each decision.
Source  Kubernetes documentation "Using RBAC Authorization" (privilege escalation prevention; verbs escalate and bind); texts as
        kube-apiserver has them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.authn import User
from edgesite.apiserver.authz import Decision
from edgesite.kube import errors, json
from edgesite.kube.rbac import GROUP, Attributes, Index, InvalidRules, Rule, compact, described, size, uncovered
from edgesite.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource
from edgesite.store.errors import Lagged
from edgesite.store.rows import Event, EventType

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind, Kinds
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.store.store import Store
    from edgesite.store.watch import Watch

__all__ = ["EscalationGuard", "Rbac"]

logger = logging.getLogger(__name__)
Object = dict[str, Any]
MOST: Final = 100_000  #: single rules of a role that is checked
_MASTERS: Final = "system:masters"
_BINDINGS: Final = (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS)
#: What of an object may change without a look at its rules: the garbage collector does.
_OWNERSHIP: Final = ("ownerReferences", "finalizers", "resourceVersion", "managedFields", "generation")
_EVERYTHING: Final = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


class Rbac:
    """Allows what some binding of the user, or of one of the groups, allows."""

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._kinds = [kinds.of(row) for row in (CLUSTER_ROLES, ROLES, *_BINDINGS)]
        self._index = Index()
        self._watches: list[tuple[Kind, Watch]] = []
        self._load()

    def _load(self) -> None:
        for _, watch in self._watches:
            watch.close()
        self._index = Index()
        self._watches = [(kind, self._store.watch(kind.prefix)) for kind in self._kinds]
        for kind in self._kinds:
            for row in self._store.list(kind.prefix).rows:
                self._learn(kind, row.key, row.value)

    @property
    def index(self) -> Index:
        """The roles and bindings as they are committed."""
        try:
            for kind, watch in self._watches:
                for event in watch.take():
                    self._follow(kind, event)
        except Lagged:  # thousands of changes since somebody asked
            self._load()
        return self._index

    def _follow(self, kind: Kind, event: Event) -> None:
        self._learn(kind, event.row.key, None if event.type is EventType.DELETED else event.row.value)

    def _learn(self, kind: Kind, key: str, value: bytes | None) -> None:
        namespace, name = kind.names_of(key)
        if kind.resource in _BINDINGS:
            try:
                self._index.set_binding(namespace, name, None if value is None else json.loads(value))
            except InvalidRules as exc:
                logger.warning("%s %s gives nothing: %s", kind.resource.plural, key, exc)
        else:
            self._index.set_role(
                namespace, name, None if value is None else lambda: json.loads(value).get("rules") or ()
            )

    def authorize(self, user: User, wanted: Attributes) -> tuple[Decision, str]:
        """Return the decision and why."""
        verdict = self.index.decide(user.name, user.groups, wanted)
        return Decision.ALLOW if verdict.allowed else Decision.NO_OPINION, verdict.reason

    def rules_of(self, user: User, namespace: str) -> list[Rule]:
        """What the user holds cluster-wide and in a namespace."""
        return self.index.rules_of(user.name, user.groups, namespace)


class EscalationGuard:
    """Refuses roles and bindings that would give more than their writer holds, unless the writer may escalate or bind."""

    name = "RBACEscalation"
    mutating = False

    def __init__(self, rbac: Rbac, allowed: Callable[[User, Attributes], tuple[bool, str]]) -> None:
        self._rbac = rbac
        self._allowed = allowed

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.group == GROUP and operation != "DELETE"

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError."""
        obj, user = request.object, User(request.user, request.groups)
        if obj is None or _MASTERS in request.groups or _only_owners_change(obj, request.old_object):
            return
        if request.resource in _BINDINGS:
            self._check_binding(request, user, obj)
        else:
            self._check_role(request, user, obj)

    def _check_role(self, request: AdmissionRequest, user: User, role: Object) -> None:
        row = request.resource
        if self._may(user, "escalate", row.plural, request.namespace, request.name):
            return
        if role.get("aggregationRule") and uncovered(self._rbac.rules_of(user, request.namespace), _EVERYTHING):
            why = "must have cluster-admin privileges to use the aggregationRule"
            raise errors.forbidden(row.plural, request.name, why, GROUP)
        self._check(request, user, role.get("rules") or ())

    def _check_binding(self, request: AdmissionRequest, user: User, binding: Object) -> None:
        ref = binding["roleRef"]
        plural, place = ("clusterroles", "") if ref["kind"] == "ClusterRole" else ("roles", request.namespace)
        if self._may(user, "bind", plural, request.namespace, ref["name"]):
            return
        rules = self._rbac.index.rules_at(place, ref["name"])
        if rules is None:
            raise errors.not_found(plural, ref["name"], GROUP)
        self._check(request, user, rules)

    def _may(self, user: User, verb: str, plural: str, namespace: str, name: str) -> bool:
        wanted = Attributes(verb, group=GROUP, version="v1", resource=plural, namespace=namespace, name=name)
        return self._allowed(user, wanted)[0]

    def _check(self, request: AdmissionRequest, user: User, rules: Sequence[Rule]) -> None:
        if size(rules) > MOST:
            why = f"more than {MOST} combinations cannot be checked against what their writer holds"
            raise errors.forbidden(request.resource.plural, request.name, why, GROUP)
        missing = uncovered(self._rbac.rules_of(user, request.namespace), rules)
        if missing:
            raise errors.forbidden(request.resource.plural, request.name, _escalation(user, missing), GROUP)


def _escalation(user: User, missing: Iterable[Rule]) -> str:
    groups = " ".join(json.dumps(one).decode() for one in user.groups)
    lines = sorted(described(rule) for rule in compact(missing))
    who = f"user {json.dumps(user.name).decode()} (groups=[{groups}])"
    return f"{who} is attempting to grant RBAC permissions not currently held:\n" + "\n".join(lines)


def _only_owners_change(new: Object, old: Object | None) -> bool:
    """Whether a write leaves everything but owners and finalizers as it was."""
    if old is None:
        return False

    def rest(obj: Object) -> Object:
        metadata = {key: value for key, value in obj["metadata"].items() if key not in _OWNERSHIP}
        return {**obj, "metadata": metadata}

    return rest(new) == rest(old)
