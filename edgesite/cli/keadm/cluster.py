"""What ``keadm init`` does on a cluster: its version, the namespace, the custom resources.

Errors  KeadmError.
Source  KubeEdge v1.12.7, keadm init (least version of the API server); chart cloudcore (namespace, CRDs).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm.apiaccess import ask
from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.client import Client

__all__ = ["check_version", "prepare"]

_LEAST: Final = (1, 11)


def check_version(kubeconfig: Path) -> str:
    """The API server's version. Raises KeadmError if it is too old, or does not answer."""

    async def question(client: Client) -> bytes:
        status, _, body = await client.request("GET", "/version")
        if status != 200:
            raise KeadmError(f"the API server answered {status} to the question for its version")
        return body

    try:
        found = json.loads(ask(kubeconfig, question))
        version = str(found["gitVersion"])
        numbers = tuple(int(re.match(r"\d+", str(found[one]))[0]) for one in ("major", "minor"))  # type: ignore[index]
    except (ValueError, KeyError, TypeError) as exc:
        raise KeadmError(f"the API server's version cannot be read: {exc}") from None
    if numbers < _LEAST:
        raise KeadmError(f"your Kubernetes version is {version}, which is lower than 1.{_LEAST[1]}")
    return version


def prepare(kubeconfig: Path) -> list[str]:
    """Make the namespace and the custom resources that are missing; returns what was done, in lines. Webhooks for devices are for
    `edgesite cloud --install-crds`. Raises KeadmError."""
    from edgesite.cloud.install import Installer
    from edgesite.cloud.namespace import ensure_namespace
    from edgesite.net.pki import RealPki
    from edgesite.net.real import RealClock

    done: list[str] = []

    async def question(client: Client) -> None:
        await ensure_namespace(client)
        clock = RealClock()
        await Installer(client, RealPki(clock), clock, done.append).run(None, "Ignore")

    ask(kubeconfig, question, deadline_s=60.0)
    return done
