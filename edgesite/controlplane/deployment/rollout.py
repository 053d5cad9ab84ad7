"""How many replicas each set of a Deployment shall have. Pure arithmetic.

Source  apps/v1 RollingUpdateDeployment (surge rounds up, unavailable rounds down, both zero makes one unavailable);
        kube-controller-manager's deployment controller (proportional scaling, order of scaling down).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgesite.controlplane.deployment.revisions import MOST, annotations_of, by_age, number, replicas_of

__all__ = [
    "Bounds",
    "available",
    "bounds",
    "new_replicas",
    "proportional",
    "scale_down_old",
    "total",
]

Object = dict[str, Any]


class Bounds:
    """``most`` pods may exist at once, ``least`` must be available."""

    __slots__ = ("least", "most", "surge", "unavailable")

    def __init__(self, replicas: int, surge: int, unavailable: int) -> None:
        self.surge, self.unavailable = surge, unavailable
        self.most, self.least = replicas + surge, max(replicas - unavailable, 0)


def bounds(deployment: Object) -> Bounds:
    """Return the bounds of a Deployment's strategy; Recreate has no surge."""
    replicas = replicas_of(deployment)
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Bounds(replicas, 0, 0)
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return Bounds(replicas, surge, min(unavailable, replicas))


def _share(value: Any, whole: int, *, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        parts = number(value[:-1]) * whole
        return -(-parts // 100) if up else parts // 100
    return number(value)


def total(sets: Sequence[Object]) -> int:
    """Replicas that are wanted of all sets."""
    return sum(replicas_of(one) for one in sets)


def available(sets: Sequence[Object]) -> int:
    """Replicas that are available of all sets."""
    return sum(number((one.get("status") or {}).get("availableReplicas")) for one in sets)


def new_replicas(deployment: Object, sets: Sequence[Object], new: Object | None) -> int:
    """Return the replicas that the new set may have now; ``sets`` are all, the new one too."""
    wanted = replicas_of(deployment)
    have = replicas_of(new) if new is not None else 0
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return wanted
    if have > wanted:
        return wanted
    room = bounds(deployment).most - total(sets)
    return have if room <= 0 else have + min(room, wanted - have)


def scale_down_old(deployment: Object, old: Sequence[Object], new: Object) -> dict[str, int]:
    """Return the new sizes, by name, of old sets that can shrink now: first pods that are not available, then others."""
    everything = [*old, new]
    limits = bounds(deployment)
    new_unavailable = replicas_of(new) - available([new])
    may_go = total(everything) - limits.least - new_unavailable
    if may_go <= 0:
        return {}
    sizes = {one["metadata"]["name"]: replicas_of(one) for one in old}
    for one in by_age(old):
        name = one["metadata"]["name"]
        unhealthy = min(may_go, sizes[name] - available([one]))
        if unhealthy > 0:
            sizes[name] -= unhealthy
            may_go -= unhealthy
    spare = available(everything) - limits.least
    for one in by_age(old):
        name = one["metadata"]["name"]
        if spare <= 0:
            break
        going = min(sizes[name], spare)
        sizes[name] -= going
        spare -= going
    return {name: size for name, size in sizes.items() if size != _size(old, name)}


def _size(sets: Sequence[Object], name: str) -> int:
    return next(replicas_of(one) for one in sets if one["metadata"]["name"] == name)


def proportional(deployment: Object, sets: Sequence[Object], new: Object | None) -> dict[str, int]:
    """Return the sizes, by name, that share a change of ``spec.replicas`` out among the sets of a rollout under way."""
    active = [one for one in sets if replicas_of(one) > 0]
    wanted = replicas_of(deployment)
    latest = active or ([new] if new is not None else by_age(sets)[-1:])
    if len(latest) <= 1:
        return {one["metadata"]["name"]: wanted for one in latest}
    if new is not None and replicas_of(new) == wanted == available([new]):
        return {one["metadata"]["name"]: 0 for one in active if one is not new}
    limits = bounds(deployment)
    to_add = (limits.most if wanted > 0 else 0) - total(active)
    if not to_add:
        return {}
    newest_first = list(reversed(by_age(active)))
    ordered = sorted(newest_first if to_add > 0 else by_age(active), key=replicas_of, reverse=True)
    added = 0
    sizes: dict[str, int] = {}
    for one in ordered:
        part = _part(deployment, one, limits.most, to_add - added)
        added += part
        sizes[one["metadata"]["name"]] = max(replicas_of(one) + part, 0)
    rest = to_add - added  # what rounding left over goes to the largest, as far as it has enough to give
    for one in ordered:
        name = one["metadata"]["name"]
        part = max(rest, -sizes[name])
        sizes[name] += part
        rest -= part
    return sizes


def _part(deployment: Object, one: Object, most: int, left: int) -> int:
    """Return the share of one set in what is ``left`` to add (or, below zero, to take)."""
    have = replicas_of(one)
    if not left:
        return 0
    if replicas_of(deployment) == 0:
        part = -have
    else:
        was = number(annotations_of(one).get(MOST)) or number((deployment.get("status") or {}).get("replicas")) or most
        part = (have * most * 2 + was) // (was * 2) - have  # rounded to the nearest
    return max(min(part, left), 0) if left > 0 else min(max(part, left), 0)
