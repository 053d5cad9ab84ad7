"""Whether a node suits a pod: node selectors, affinity terms, taints and tolerations. Pure functions on API objects.

Source  core/v1 NodeSelector, Toleration, Taint (matching rules).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["first_untolerated", "matches_pod_node_rules", "matches_term", "tolerates"]


def matches_pod_node_rules(spec: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether a node satisfies ``nodeSelector`` and the required node affinity of a pod's ``spec``."""
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(matches_term(term, name, labels) for term in required.get("nodeSelectorTerms") or ())


def matches_term(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether a node satisfies all expressions of one term; a term without any matches nothing."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_matches(one, labels) for one in expressions) and all(
        _matches(one, {"metadata.name": name}) for one in fields
    )


def _matches(requirement: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    key, operator = requirement.get("key", ""), requirement.get("operator", "")
    wanted: Sequence[str] = requirement.get("values") or ()
    have = values.get(key)
    if operator == "In":
        return have is not None and have in wanted
    if operator == "NotIn":
        return have is None or have not in wanted
    if operator == "Exists":
        return have is not None
    if operator == "DoesNotExist":
        return have is None
    if operator in ("Gt", "Lt") and have is not None and len(wanted) == 1:
        try:
            return int(have) > int(wanted[0]) if operator == "Gt" else int(have) < int(wanted[0])
        except ValueError:
            return False
    return False


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether one toleration holds against one taint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    key = toleration.get("key") or ""
    if key and key != taint.get("key"):
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(key) and (toleration.get("value") or "") == (taint.get("value") or "")


def first_untolerated(
    taints: Iterable[Mapping[str, Any]], tolerations: Sequence[Mapping[str, Any]], effects: Sequence[str]
) -> Mapping[str, Any] | None:
    """Return the first taint with one of ``effects`` that no toleration holds against."""
    for taint in taints:
        if taint.get("effect") in effects and not any(tolerates(one, taint) for one in tolerations):
            return taint
    return None
