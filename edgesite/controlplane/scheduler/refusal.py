"""Why a node cannot take a pod, and the sentence that tells it for all nodes, as kube-scheduler words it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Refusal", "refused_message"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node cannot take a pod. ``resolvable``: it could, if some pods on it went away."""

    reasons: tuple[str, ...]
    resolvable: bool


def refused_message(total: int, refusals: Iterable[Refusal]) -> str:
    """Return "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) ...."."""
    counts: dict[str, int] = {}
    for one in refusals:
        for reason in one.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    text = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    return f"0/{total} nodes are available: {text}." if text else f"0/{total} nodes are available"
