"""Upgrade jobs: what is wanted of which node, and their state; pure.

    status.state              upgrading, completed               status.status[]: one entry a node, with the history of this job

A version must look like vX.Y.Z and an image like an image before either leaves for a node: KubeEdge before v1.21.2 pasted both into a
shell command there.

Source  KubeEdge v1.12.7 cloud/pkg/nodeupgradejobcontroller (members, states, texts, defaults), CVE-2026-62371.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["COMPLETED", "RESULTS", "UPGRADING", "content_of", "entry", "finished", "invalid", "state_of", "timeout_of"]

Object = dict[str, Any]
UPGRADING: Final = "upgrading"
COMPLETED: Final = "completed"
SUCCESS: Final = "upgrade_success"
FAILED: Final = "upgrade_failed_rollback_success"
RESULTS: Final = frozenset({SUCCESS, FAILED, "upgrade_failed_rollback_failed"})
_IMAGE: Final = "kubeedge/installation-package"
_VERSION: Final = re.compile(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")
_REPOSITORY: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]|:\d+/)*")
_TIMEOUT_S: Final = 300
_REASON_CHARS: Final = 1024


def invalid(job: Object) -> str:
    """Why a job cannot be carried out; "" if it can."""
    spec = job.get("spec") or {}
    if not _VERSION.fullmatch(str(spec.get("version") or "")):
        return f"version {spec.get('version')!r:.80} is not of the form vX.Y.Z"
    if spec.get("upgradeTool") not in (None, "", "keadm"):
        return f"not supported upgrade tool type: {spec['upgradeTool']!s:.80}"
    if not _REPOSITORY.fullmatch(_repository(spec)):
        return f"image {spec.get('image')!r:.80} is none"
    if bool(spec.get("nodeNames")) == bool(spec.get("labelSelector")):
        return "exactly one of nodeNames and labelSelector must be given"
    return ""


def content_of(job: Object, history_id: str) -> Object:
    """What an edge of v1.12 is told."""
    spec = job["spec"]
    return {
        "UpgradeID": job["metadata"]["name"],
        "HistoryID": history_id,
        "Version": spec["version"],
        "UpgradeTool": spec.get("upgradeTool") or "",
        "Image": f"{_repository(spec)}:{spec['version']}",
    }


def timeout_of(job: Object) -> float:
    """Seconds that one node may take."""
    value = (job.get("spec") or {}).get("timeoutSeconds")
    return float(value) if isinstance(value, int) and value > 0 else _TIMEOUT_S


def entry(node: str, history_id: str, now: str, from_version: str, to_version: str) -> Object:
    """The entry of a node that was told."""
    history = {"historyID": history_id, "upgradeTime": now, "fromVersion": from_version, "toVersion": to_version}
    return {"nodeName": node, "state": UPGRADING, "history": history}


def finished(old: Object, result: str, reason: str) -> Object:
    """The entry of a node whose upgrade is over."""
    history = {**(old.get("history") or {}), "result": result if result in RESULTS else FAILED}
    if reason:
        history["reason"] = reason[:_REASON_CHARS]
    return {**old, "state": COMPLETED, "history": history}


def state_of(entries: Sequence[Object]) -> str:
    """The state of the whole job."""
    return COMPLETED if all(one.get("state") == COMPLETED for one in entries) else UPGRADING


def _repository(spec: Object) -> str:
    """The image without tag and digest."""
    image = str(spec.get("image") or _IMAGE).partition("@")[0]
    head, slash, tail = image.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"
