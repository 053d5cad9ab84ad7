"""``edgesite token``: the token that an edge joins with, read from the running cloud role; ``edgesite token create``: one more.

A token that is made for a node gives certificates for that name alone, also where the node exists already and has one.
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.cli.errors import UsageError
from edgesite.hookspecs import Command
from edgesite.runtime.paths import default_data_dir

if TYPE_CHECKING:
    from edgesite.client import Client

__all__ = ["COMMAND"]

_NAMESPACE: Final = "kubeedge"
_SECRET: Final = "tokensecret"
_CA_SECRET: Final = "casecret"
_DEADLINE_S: Final = 15.0
_TTL: Final = "24h"


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="data folder of the cloud role on this machine")
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="reach the API by this file instead")
    parser.add_argument("action", nargs="?", choices=("create",), help="make another token, which nobody keeps")
    parser.add_argument("--node", metavar="NAME", default="", help="with create: the only node that it is for")
    parser.add_argument("--ttl", metavar="TIME", help=f"with create: how long it is valid (default {_TTL})")


def _run(arguments: argparse.Namespace) -> int:
    from edgesite.kube.names import dns1123_subdomain_problems
    from edgesite.kube.times import InvalidTime, parse_duration

    if (arguments.node or arguments.ttl) and arguments.action != "create":
        raise UsageError("--node and --ttl go with create")
    if arguments.node and (problems := dns1123_subdomain_problems(arguments.node)):
        raise UsageError(f"--node {arguments.node}: {problems[0]}")
    try:
        ttl_s = parse_duration(arguments.ttl or _TTL)
    except InvalidTime as exc:
        raise UsageError(f"--ttl: {exc}") from None
    if ttl_s <= 0:
        raise UsageError("--ttl must be more than nothing")
    kubeconfig = arguments.kubeconfig or (arguments.data_dir or default_data_dir()) / "admin.kubeconfig"
    try:
        token = anyio.run(_token, kubeconfig, arguments.action == "create", arguments.node, ttl_s)
    except (OSError, TimeoutError, LookupError, ValueError) as exc:
        print(
            f"edgesite: no token: {exc or 'the API did not answer in time'} (kubeconfig {kubeconfig})", file=sys.stderr
        )
        return 1
    print(token)
    return 0


async def _token(kubeconfig: Path, create: bool, node: str, ttl_s: float) -> str:
    """Raises LookupError, OSError, TimeoutError, ValueError."""
    from edgesite.client.client import Client
    from edgesite.client.http import HttpTransport
    from edgesite.client.kubeconfig import load
    from edgesite.kube.errors import ApiError
    from edgesite.net.real import RealClock, RealNet

    with anyio.fail_after(_DEADLINE_S):
        transport = HttpTransport(RealNet(), RealClock(), load(kubeconfig))
        try:
            client = Client(transport)
            return await (_made(client, node, ttl_s) if create else _current(client))
        except ApiError as exc:
            raise LookupError(exc.message) from None
        finally:
            await transport.close()


async def _current(client: Client) -> str:
    """Raises ApiError, LookupError, ValueError."""
    data = await _secret(client, _SECRET)
    if not data.get("tokendata"):
        raise LookupError(f"secret {_NAMESPACE}/{_SECRET} holds no token yet; is CloudHub on?")
    return data["tokendata"].decode()


async def _made(client: Client, node: str, ttl_s: float) -> str:
    """Raises ApiError, LookupError, ValueError."""
    from edgesite.cloud.cloudhub import jointoken

    data = await _secret(client, _CA_SECRET)
    if not data.get("cadata") or not data.get("cakeydata"):
        raise LookupError(f"secret {_NAMESPACE}/{_CA_SECRET} holds no CA yet; is CloudHub on?")
    return jointoken.make(data["cadata"], data["cakeydata"], int(time.time() + ttl_s), node)


async def _secret(client: Client, name: str) -> dict[str, bytes]:
    """Raises ApiError, ValueError."""
    from edgesite.kube.resources import SECRETS

    secret = await client.get(SECRETS, name, _NAMESPACE)
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


COMMAND = Command("token", "Print the token that an edge joins with.", _configure, _run)
