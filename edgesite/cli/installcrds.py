"""``edgesite cloud --install-crds``: custom resources and webhooks for a cluster, as its administrator."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import anyio

from edgesite.cli.errors import UsageError
from edgesite.client import kubeconfig
from edgesite.client.client import Client
from edgesite.client.http import HttpTransport
from edgesite.cloud.admission.place import SERVICE, Place, place_of
from edgesite.cloud.install import Installer
from edgesite.cloud.namespace import NAMESPACE
from edgesite.kube.errors import ApiError
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealNet

__all__ = ["install"]

_DEADLINE_S: Final = 300.0  #: there may be many objects to rewrite


def install(arguments: argparse.Namespace, modules: Mapping[str, Any]) -> int:
    """Return the exit code. Raises UsageError."""
    settings = modules["admission"]
    place, default = _places(arguments, settings)

    async def run() -> None:
        access = kubeconfig.load(arguments.kubeconfig) if arguments.kubeconfig else kubeconfig.from_pod(os.environ)
        clock = RealClock()
        transport = HttpTransport(RealNet(), clock, access)
        try:
            installer = Installer(Client(transport).named("edgesite"), RealPki(clock), clock, _say)
            policy = str(settings["failurePolicy"])
            with anyio.fail_after(_DEADLINE_S):
                await installer.run(place, policy, default=default, device_statuses=arguments.device_statuses)
        finally:
            await transport.close()

    try:
        anyio.run(run)
    except (OSError, ValueError, ApiError) as exc:  # TimeoutError is an OSError, PkiError a ValueError
        print(f"edgesite: the custom resources cannot be installed: {exc or 'no answer in time'}", file=sys.stderr)
        return 1
    return 0


def _places(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> tuple[Place | None, Place | None]:
    """Where the webhooks are, and where if nothing else says so. Raises UsageError."""
    if not settings.get("enable", True):
        return None, None
    try:
        place = place_of(settings)
    except ValueError as exc:
        raise UsageError(f"modules.admission.url: {exc}") from None
    if place is None and arguments.advertise_address:
        host = arguments.advertise_address
        place = Place(url=f"https://{f'[{host}]' if ':' in host else host}:{int(settings['port'])}")
    return place, Place(namespace=NAMESPACE, service=SERVICE) if arguments.in_cluster else None


def _say(line: str) -> None:
    print(line, flush=True)
