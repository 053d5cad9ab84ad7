"""Role-based access control, decided from rules in memory: what roles and bindings allow, and who holds which rules.

    index = Index(); index.set_role("", "view", rules); index.set_binding("default", "read", binding)
    index.decide("bob", ("dev",), Attributes("get", resource="pods", namespace="default"))

A decision looks up the bindings of the user and of each group, cluster-wide and of the one namespace, and asks each bound role a
few times by (group, resource): it does not depend on how many bindings there are for others.

Errors  InvalidRules for rules, subjects or references that are none. Decisions do not raise.
State   `Index`: roles (compiled when first asked) and bindings, as set.
Source  rbac.authorization.k8s.io/v1; Kubernetes documentation "Using RBAC Authorization" (wildcards, subresources, resource names,
        privilege escalation); texts of reasons as kube-apiserver has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "GROUP",
    "Attributes",
    "Index",
    "InvalidRules",
    "Role",
    "Rule",
    "Verdict",
    "account_name",
    "compact",
    "described",
    "singles",
    "size",
    "split_account",
    "uncovered",
]

GROUP: Final = "rbac.authorization.k8s.io"
ALL: Final = "*"
_ACCOUNTS: Final = "system:serviceaccount:"
Rule = Mapping[str, Any]


class InvalidRules(ValueError):
    """A role or binding that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is to be done. For non-resource requests only ``verb`` and ``path`` are set."""

    verb: str
    path: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    loopback: bool = False

    @property
    def is_resource(self) -> bool:
        return bool(self.resource)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` says which binding allowed it, or which roles are missing where none did."""

    allowed: bool
    reason: str = ""


def account_name(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"{_ACCOUNTS}{namespace}:{name}"


def split_account(user: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user name stands for, or None."""
    if not user.startswith(_ACCOUNTS):
        return None
    namespace, separator, name = user[len(_ACCOUNTS) :].partition(":")
    return (namespace, name) if separator and namespace and name and ":" not in name else None


# -- one role


class Role:
    """The rules of one role, compiled: (group, resource) -> whose verbs and names."""

    __slots__ = ("_paths", "_prefixes", "_table", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Raises InvalidRules."""
        self.rules = rules
        self._table: dict[tuple[str, str], list[tuple[frozenset[str] | None, frozenset[str] | None]]] = {}
        self._paths: dict[str, frozenset[str] | None] = {}
        self._prefixes: list[tuple[str, frozenset[str] | None]] = []
        for rule in rules:
            verbs = _all_or(_texts(rule, "verbs"))
            names = _texts(rule, "resourceNames")
            entry = (verbs, frozenset(names) if names else None)
            for group in _texts(rule, "apiGroups"):
                for resource in _texts(rule, "resources"):
                    self._table.setdefault((group, resource), []).append(entry)
            for path in _texts(rule, "nonResourceURLs"):
                if path.endswith(ALL):
                    self._prefixes.append((path.rstrip(ALL), verbs))
                else:
                    known = self._paths.get(path, frozenset())
                    self._paths[path] = None if verbs is None or known is None else known | verbs

    def allows(self, wanted: Attributes) -> bool:
        """A ``*`` in what is wanted is covered by a ``*`` here alone."""
        if not wanted.resource:
            return self._allows_path(wanted.verb, wanted.path)
        verb, group, name, sub = wanted.verb, wanted.group, wanted.name, wanted.subresource
        table = self._table
        resources = (f"{wanted.resource}/{sub}", ALL, f"*/{sub}") if sub else (wanted.resource, ALL)
        for resource in resources:
            for key in ((group, resource), (ALL, resource)):
                for verbs, names in table.get(key, ()):
                    if (verbs is None or verb in verbs) and (names is None or name in names):
                        return True
        return False

    def _allows_path(self, verb: str, path: str) -> bool:
        if path in self._paths:
            verbs = self._paths[path]
            if verbs is None or verb in verbs:
                return True
        return any(path.startswith(prefix) and (verbs is None or verb in verbs) for prefix, verbs in self._prefixes)


def _texts(rule: Rule, field: str) -> list[str]:
    values = rule.get(field) if isinstance(rule, Mapping) else None
    if values is None and isinstance(rule, Mapping):
        return []
    if not isinstance(values, list | tuple) or not all(isinstance(one, str) for one in values):
        raise InvalidRules(f"{field} of a rule is a list of texts")
    return list(values)


def _all_or(verbs: list[str]) -> frozenset[str] | None:
    return None if ALL in verbs else frozenset(verbs)


# -- many roles and bindings


@dataclass(frozen=True, slots=True)
class _Grant:
    """One subject of one binding: which role it gets, and how to speak of that."""

    role: tuple[str, str]  #: namespace ("" of a ClusterRole) and name
    binding: str
    namespace: str
    subject: str

    def reason(self) -> str:
        kind, name = ("Role", self.role[1]) if self.role[0] else ("ClusterRole", self.role[1])
        if self.namespace:
            by = f'RoleBinding "{self.binding}/{self.namespace}"'
        else:
            by = f'ClusterRoleBinding "{self.binding}"'
        return f'RBAC: allowed by {by} of {kind} "{name}" to {self.subject}'


_Grants = dict[str, dict[str, dict[str, _Grant]]]  # user or group -> namespace -> binding -> grant


class Index:
    """Roles and bindings, found by subject. Namespaces are "" for ClusterRoles and ClusterRoleBindings."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], Callable[[], Sequence[Rule]]] = {}
        self._roles: dict[tuple[str, str], Role] = {}
        self._users: _Grants = {}
        self._groups: _Grants = {}
        self._subjects: dict[tuple[str, str], list[tuple[_Grants, str]]] = {}  # where a binding stands

    def set_role(self, namespace: str, name: str, rules: Sequence[Rule] | Callable[[], Sequence[Rule]] | None) -> None:
        """Put a role in place of the one there was; None takes it away. Rules may be read when they are needed."""
        key = (namespace, name)
        self._roles.pop(key, None)
        if rules is None:
            self._rules.pop(key, None)
        else:
            self._rules[key] = rules if callable(rules) else lambda: rules

    def set_binding(self, namespace: str, name: str, binding: Mapping[str, Any] | None) -> None:
        """Put a binding in place of the one there was; None takes it away. Raises InvalidRules, and then it is away."""
        for grants, who in self._subjects.pop((namespace, name), ()):
            places = grants[who]
            places[namespace].pop(name, None)
            if not places[namespace]:
                del places[namespace]
            if not places:
                del grants[who]
        if binding is None:
            return
        role = _role_of(namespace, binding)
        stands = []
        for subject in binding.get("subjects") or ():
            kind, who, text = _subject(namespace, subject)
            grants = self._groups if kind == "Group" else self._users
            grants.setdefault(who, {}).setdefault(namespace, {})[name] = _Grant(role, name, namespace, text)
            stands.append((grants, who))
        if stands:
            self._subjects[namespace, name] = list(
                {(id(grants), who): (grants, who) for grants, who in stands}.values()
            )

    def role(self, namespace: str, name: str) -> Role | None:
        """The compiled role; one whose rules make no sense allows nothing."""
        key = (namespace, name)
        found = self._roles.get(key)
        if found is None and key in self._rules:
            try:
                found = Role(self._rules[key]())
            except InvalidRules:
                found = Role(())
            self._roles[key] = found
        return found

    def _grants(self, user: str, groups: Iterable[str], namespace: str) -> Iterator[_Grant]:
        places = ("", namespace) if namespace else ("",)
        for grants, names in ((self._users, (user,)), (self._groups, groups)):
            for name in names:
                held = grants.get(name)
                if held is not None:
                    for place in places:
                        if place in held:
                            yield from held[place].values()

    def decide(self, user: str, groups: Iterable[str], wanted: Attributes) -> Verdict:
        """Whether some binding allows it."""
        missing: dict[str, None] = {}
        for grant in self._grants(user, groups, wanted.namespace if wanted.resource else ""):
            role = self._roles.get(grant.role) or self.role(*grant.role)
            if role is None:
                kind = "role" if grant.role[0] else "clusterrole"
                missing[f'{kind}.{GROUP} "{grant.role[1]}" not found'] = None
            elif role.allows(wanted):
                return Verdict(True, grant.reason())
        if not missing:
            return Verdict(False)
        texts = list(missing)
        return Verdict(False, f"RBAC: {texts[0] if len(texts) == 1 else '[' + ', '.join(texts) + ']'}")

    def rules_of(self, user: str, groups: Iterable[str], namespace: str) -> list[Rule]:
        """All rules that a user holds cluster-wide and in a namespace."""
        found: list[Rule] = []
        seen: set[tuple[str, str]] = set()
        for grant in self._grants(user, groups, namespace):
            role = self.role(*grant.role)
            if role is not None and grant.role not in seen:
                seen.add(grant.role)
                found.extend(role.rules)
        return found

    def rules_at(self, namespace: str, name: str) -> Sequence[Rule] | None:
        """The rules of a role as they were set, or None."""
        rules = self._rules.get((namespace, name))
        return None if rules is None else rules()


def _role_of(namespace: str, binding: Mapping[str, Any]) -> tuple[str, str]:
    ref = binding.get("roleRef")
    if not isinstance(ref, Mapping) or ref.get("kind") not in ("Role", "ClusterRole") or not ref.get("name"):
        raise InvalidRules("roleRef names a Role or a ClusterRole")
    if ref["kind"] == "ClusterRole":
        return "", str(ref["name"])
    if not namespace:
        raise InvalidRules("a ClusterRoleBinding refers to a ClusterRole")
    return namespace, str(ref["name"])


def _subject(namespace: str, subject: Any) -> tuple[str, str, str]:
    """Kind, the name that users have, and the text for reasons."""
    kind, name = (subject.get("kind"), subject.get("name")) if isinstance(subject, Mapping) else (None, None)
    if kind not in ("User", "Group", "ServiceAccount") or not isinstance(name, str):
        raise InvalidRules("a subject is a User, a Group or a ServiceAccount with a name")
    if kind != "ServiceAccount":
        return kind, name, f'{kind} "{name}"'
    place = str(subject.get("namespace") or namespace)
    return kind, account_name(place, name), f'ServiceAccount "{name}/{place}"'


_FIELDS: Final = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")


# -- rules as values: for escalation checks and reviews


def singles(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Each rule taken apart into rules of one verb for one resource (and name), or one path. Raises InvalidRules."""
    for rule in rules:
        for verb in _texts(rule, "verbs"):
            for group in _texts(rule, "apiGroups"):
                for resource in _texts(rule, "resources"):
                    single = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
                    for name in _texts(rule, "resourceNames") or (None,):
                        yield single if name is None else {**single, "resourceNames": [name]}
            for path in _texts(rule, "nonResourceURLs"):
                yield {"verbs": [verb], "nonResourceURLs": [path]}


def size(rules: Iterable[Rule]) -> int:
    """How many single rules these are. Raises InvalidRules."""
    total = 0
    for rule in rules:
        verbs, groups, resources, names, paths = (len(_texts(rule, field)) for field in _FIELDS)
        total += verbs * (groups * resources * max(names, 1) + paths)
    return total


def uncovered(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """What of ``wanted`` nobody with the rules ``held`` may do, as single rules. Raises InvalidRules."""
    role = Role(held)
    return [rule for rule in singles(wanted) if not role.allows(_as_attributes(rule))]


def _as_attributes(single: Rule) -> Attributes:
    if "nonResourceURLs" in single:
        return Attributes(single["verbs"][0], single["nonResourceURLs"][0])
    resource, _, sub = single["resources"][0].partition("/")
    name = (single.get("resourceNames") or ("",))[0]
    return Attributes(single["verbs"][0], group=single["apiGroups"][0], resource=resource, subresource=sub, name=name)


def compact(rules: Iterable[Rule]) -> list[Rule]:
    """Join single rules that differ in their verb alone."""
    joined: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for rule in rules:
        fields = ("apiGroups", "resources", "resourceNames", "nonResourceURLs")
        key = tuple("\0".join(rule.get(field) or ()) for field in fields)
        if key not in joined:
            joined[key] = {name: list(values) for name, values in rule.items()}
        else:
            verbs = joined[key]["verbs"]
            verbs.extend(one for one in rule["verbs"] if one not in verbs)
    return list(joined.values())


_SHOWN: Final = (
    ("APIGroups", "apiGroups"),
    ("Resources", "resources"),
    ("NonResourceURLs", "nonResourceURLs"),
    ("ResourceNames", "resourceNames"),
    ("Verbs", "verbs"),
)


def described(rule: Rule) -> str:
    """A rule on one line, as kube-apiserver shows it in refusals."""
    parts = []
    for title, field in _SHOWN:
        if rule.get(field):
            values = " ".join(f'"{one}"' for one in rule[field])
            parts.append(f"{title}:[{values}]")
    return "{" + ", ".join(parts) + "}"
