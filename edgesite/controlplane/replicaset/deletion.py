"""Which pods go first when there are too many. Pure.

Source  kube-controller-manager, ActivePodsWithRanks (order of the criteria); annotation controller.kubernetes.io/pod-deletion-cost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgesite.controlplane.pods import is_active, is_ready, ready_since
from edgesite.kube.times import parse_time

__all__ = ["to_delete"]

COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_PHASES: Final = {"Pending": 0, "Unknown": 1, "Running": 2}
Object = Mapping[str, Any]


def to_delete(
    pods: Sequence[dict[str, Any]], related: Iterable[Object], count: int, now: float
) -> list[dict[str, Any]]:
    """Return the ``count`` pods that are missed least.

    ``related`` are all pods of the same Deployment: of two on one node one is rather spared than the last of another node.
    """
    crowd = Counter(pod["spec"].get("nodeName") for pod in related if is_active(pod) and pod["spec"].get("nodeName"))
    return sorted(pods, key=lambda pod: _worth(pod, crowd, now))[:count]


def _worth(pod: Object, crowd: Mapping[str, int], now: float) -> tuple[Any, ...]:
    spec, status = pod["spec"], pod.get("status") or {}
    ready = is_ready(pod)
    return (
        bool(spec.get("nodeName")),
        _PHASES.get(status.get("phase") or "Pending", 2),
        ready,
        _cost(pod),
        -crowd.get(spec.get("nodeName") or "", 0),
        _age_class(now - ready_since(pod)) if ready else 0,
        -max((one.get("restartCount", 0) for one in status.get("containerStatuses") or ()), default=0),
        _age_class(now - parse_time(pod["metadata"]["creationTimestamp"])),
        pod["metadata"].get("uid", ""),
    )


def _age_class(age_s: float) -> int:
    """Ages are told apart by orders of two only, so that chance, not start order, decides among pods of about one age."""
    return int(math.log2(age_s)) + 1 if age_s >= 1 else 0


def _cost(pod: Object) -> int:
    try:
        return int((pod["metadata"].get("annotations") or {}).get(COST, 0))
    except ValueError:
        return 0
