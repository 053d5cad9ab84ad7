"""Decisions by one ServiceAccountAccess object: the roles and bindings of a service account, as the cloud has put them together.

State   None; pure.
Source  KubeEdge v1.14, policy.kubeedge.io/v1alpha1 ServiceAccountAccess: spec.serviceAccount, spec.serviceAccountUid,
        spec.accessRoleBinding[] {roleBinding, rules}, spec.accessClusterRoleBinding[] {clusterRoleBinding, rules}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgesite.kube.rbac import Attributes, Index, InvalidRules, Verdict

__all__ = ["decide"]

Object = Mapping[str, Any]


def decide(access: Object, user: str, uid: str, groups: Iterable[str], wanted: Attributes) -> Verdict | None:
    """Whether the account may do it; None if the object is about another account of the same name."""
    spec = access.get("spec") or {}
    known = str(spec.get("serviceAccountUid") or "")
    if uid and known and uid != known:
        return None
    index = Index()
    for one in spec.get("accessRoleBinding") or ():
        _add(index, one, one.get("roleBinding") or {})
    for one in spec.get("accessClusterRoleBinding") or ():
        _add(index, one, one.get("clusterRoleBinding") or {})
    return index.decide(user, groups, wanted)


def _add(index: Index, one: Object, binding: Object) -> None:
    """Take one binding with the rules of its role; one that makes no sense gives nothing."""
    metadata, ref = binding.get("metadata") or {}, binding.get("roleRef") or {}
    namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
    try:
        index.set_binding(namespace, name, binding)
    except InvalidRules:
        return
    role_namespace = namespace if ref.get("kind") == "Role" else ""
    index.set_role(role_namespace, str(ref.get("name") or ""), one.get("rules") or ())
