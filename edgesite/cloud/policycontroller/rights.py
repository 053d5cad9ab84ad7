"""From roles and bindings to what one service account holds: the spec of its ServiceAccountAccess.

State   None; pure.
Source  KubeEdge v1.14, policy.kubeedge.io/v1alpha1 (fields); rbac.authorization.k8s.io/v1 (which subjects an account is).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgesite.kube.rbac import account_name

__all__ = ["concerns", "spec_of"]

Object = dict[str, Any]
Rules = Callable[[str, str], Sequence[Mapping[str, Any]] | None]


def concerns(binding: Mapping[str, Any], namespace: str, name: str) -> bool:
    """Whether a binding gives something to the account: by itself, by its user name, or by one of its groups."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    home = str(binding["metadata"].get("namespace") or "")
    for subject in binding.get("subjects") or ():
        kind, who = subject.get("kind"), subject.get("name")
        if kind == "ServiceAccount" and who == name and (subject.get("namespace") or home) == namespace:
            return True
        if (kind == "Group" and who in groups) or (kind == "User" and who == account_name(namespace, name)):
            return True
    return False


def spec_of(account: Object, bindings: Iterable[Object], cluster_bindings: Iterable[Object], rules_at: Rules) -> Object:
    """``rules_at(namespace, name)``: the rules of a Role, or of a ClusterRole where the namespace is ""; None if there is none."""
    metadata = account["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]

    def held(all_of_them: Iterable[Object], field: str) -> list[Object]:
        found = []
        for one in sorted(all_of_them, key=_place):
            ref = one.get("roleRef") or {}
            place = str(one["metadata"].get("namespace") or "") if ref.get("kind") == "Role" else ""
            rules = rules_at(place, str(ref.get("name") or "")) if concerns(one, namespace, name) else None
            if rules is not None:
                found.append({field: _plain(one), "rules": list(rules)})
        return found

    shown = {"name": name, "namespace": namespace, "uid": metadata["uid"]}
    return {
        "serviceAccount": {"metadata": shown},
        "serviceAccountUid": metadata["uid"],
        "accessRoleBinding": held(bindings, "roleBinding"),
        "accessClusterRoleBinding": held(cluster_bindings, "clusterRoleBinding"),
    }


def _place(obj: Object) -> tuple[str, str]:
    return str(obj["metadata"].get("namespace") or ""), str(obj["metadata"]["name"])


def _plain(binding: Object) -> Object:
    """A binding without what changes nothing of it."""
    kept = {key: binding["metadata"][key] for key in ("name", "namespace", "uid") if binding["metadata"].get(key)}
    return {"metadata": kept, "subjects": list(binding.get("subjects") or ()), "roleRef": binding["roleRef"]}
