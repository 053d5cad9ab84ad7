"""Service account tokens for projected volumes: asked for, renewed before they end, and done without where there is no cloud.

A node without a link must still start the pods that it has run before. Such a pod keeps its old token, or gets an empty one, until
another can be had; without the cloud neither would open anything.

Units   Seconds; times of expiry are of the wall clock, what is returned is from now on.
Errors  VolumeError: the cloud refuses the token, or a pod that has never run cannot have one yet.
Source  core/v1 ServiceAccountTokenProjection; kubelet renews at four fifths of a token's life, and after a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState
from edgesite.edge.edged.volumes.payload import VolumeError
from edgesite.kube.errors import ApiError
from edgesite.kube.times import InvalidTime, parse_time

__all__ = ["Token", "due_s", "get_token", "only_user"]

LIFE_S: Final = 3600
SPARE: Final = 0.2  #: part of a token's life that is left when another is asked for
MOST_S: Final = 24 * 3600.0  #: no token is kept for longer
SPREAD: Final = 0.02  #: part of its life by which that may be later, so that not all pods of a node ask at once
SOON_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Token:
    text: bytes
    renew_s: float


async def get_token(services: PodServices, state: PodState, source: Mapping[str, Any], file: Path) -> Token:
    """Return what ``file`` of the volume is to hold, and after how long to ask again. Raises VolumeError."""
    pod = state.pod
    life_s = float(source.get("expirationSeconds") or LIFE_S)
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": [source["audience"]] if source.get("audience") else [],
            "expirationSeconds": int(life_s),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
        },
    }
    account = pod.spec.get("serviceAccountName") or "default"
    try:
        answer = await services.objects.token(pod.namespace, account, request)
    except ApiError as exc:
        if exc.code < 500 or not _has_run(state):
            raise VolumeError(f"failed to fetch token: {exc.message}") from exc
        services.log.warning("pod=%s goes on without a fresh token: %s", pod.key, exc.message)
        return Token(await services.threads.run(_held, file), SOON_S)
    status = answer.get("status") or {}
    life_s = float((answer.get("spec") or {}).get("expirationSeconds") or life_s)  # the cloud may give it a shorter one
    left_s = _left_s(status, life_s, services.clock.time())
    return Token(str(status.get("token", "")).encode(), due_s(left_s, life_s, services.random.random()))


def only_user(pod: Pod) -> int | None:
    """The one user as whom all containers run, to whom alone tokens then belong; None where it is not said, or differs."""
    common = (pod.spec.get("securityContext") or {}).get("runAsUser")
    users = set()
    for container in (*pod.init_containers, *pod.containers):
        own = (container.get("securityContext") or {}).get("runAsUser")
        users.add(common if own is None else own)
    return users.pop() if len(users) == 1 else None


def due_s(left_s: float, life_s: float, draw: float) -> float:
    """After how long to ask again for a token with so much left of its life; ``draw`` is from 0 to 1."""
    due = min(left_s - life_s * SPARE, left_s - life_s + MOST_S)
    return max(due + draw * min(life_s, MOST_S) * SPREAD, SOON_S)


def _has_run(state: PodState) -> bool:
    return bool(state.containers or state.sandboxes or state.pod.status.get("startTime"))


def _held(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # memory that a reboot has cleared


def _left_s(status: Mapping[str, Any], life_s: float, now: float) -> float:
    """How long the token is good for; one that was stored has used up a part of its life."""
    try:
        return parse_time(str(status.get("expirationTimestamp") or "")) - now
    except InvalidTime:
        return life_s
