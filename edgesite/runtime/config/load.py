"""Gets validated configuration into this process without what validates it: a child process does that, a cache spares it.

The cache (``config.cache`` in the data directory, 0600) holds the last answer under a hash of everything that went in, so
that a warm start runs no child.

Errors  BadConfig: what is wrong, one line each; OSError when the child cannot be started.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edgesite
from edgesite.runtime.plugins import plugin_places

__all__ = ["BadConfig", "internal_argv", "load"]

_DEADLINE_S = 60


class BadConfig(ValueError):
    """``problems`` says what is wrong with the configuration, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def internal_argv(module: str) -> list[str]:
    """The argument vector that runs one of our internal modules as a process of its own, frozen or not."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--internal", module]
    return [sys.executable, "-P", "-m", module]


def load(
    kind: str,
    *,
    file: Path | None,
    sets: Sequence[str],
    underlay: Mapping[str, Any],
    overlay: Mapping[str, Any],
    sections: Sequence[tuple[str, str, str]],
    cache: Path,
) -> tuple[dict[str, Any], list[str]]:
    """Return the site's values and warnings. Blocking, up to a second without the cache. Raises BadConfig, OSError."""
    request = {
        "kind": kind,
        "file": str(file) if file else None,
        "sets": list(sets),
        "underlay": underlay,
        "overlay": overlay,
        "sections": [list(one) for one in sections],
    }
    key = _key(request, file)
    if answer := _cached(cache, key):
        return answer["values"], answer["warnings"]
    done = subprocess.run(
        internal_argv("edgesite.runtime.config.child"),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    if done.returncode:
        raise BadConfig(
            [f"validating the configuration failed: {done.stderr.strip() or f'exit code {done.returncode}'}"]
        )
    answer = json.loads(done.stdout)
    if problems := answer.get("problems"):
        raise BadConfig(problems)
    _remember(cache, key, answer)
    return answer["values"], answer["warnings"]


def _key(request: Mapping[str, Any], file: Path | None) -> str:
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
    digest.update(edgesite.__version__.encode())
    ours = Path(__file__).parent
    for model in ("api.py", "cloud.py", "edge.py", "logs.py", "site.py", "validate.py"):
        try:
            stat = (ours / model).stat()
        except OSError:  # frozen: the version alone tells
            continue
        digest.update(f"{stat.st_mtime_ns}.{stat.st_size}".encode())
    for name in sorted(one for one in os.environ if one.upper().startswith("EDGESITE_")):
        digest.update(f"{name}={os.environ[name]}\0".encode())
    for place in plugin_places() if request["sections"] else ():
        digest.update(os.fsencode(place.resolve()))  # another version of a plugin is another folder
    if file:
        try:
            digest.update(file.read_bytes())
        except OSError:
            digest.update(b"?")
    return digest.hexdigest()


def _cached(cache: Path, key: str) -> dict[str, Any] | None:
    try:
        held = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return None
    return held["answer"] if isinstance(held, dict) and held.get("key") == key else None


def _remember(cache: Path, key: str, answer: Mapping[str, Any]) -> None:
    temporary = cache.with_suffix(".new")
    try:
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as out:
            json.dump({"key": key, "answer": answer}, out)
        temporary.replace(cache)
    except OSError:
        return  # only a cache: the next start validates again
