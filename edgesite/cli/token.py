"""``edgesite token``: the token that an edge joins with, read from the running cloud role."""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path
from typing import Final

import anyio

from edgesite.hookspecs import Command
from edgesite.runtime.paths import default_data_dir

__all__ = ["COMMAND"]

_NAMESPACE: Final = "kubeedge"
_SECRET: Final = "tokensecret"
_DEADLINE_S: Final = 15.0


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="data folder of the cloud role on this machine")
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="reach the API by this file instead")


def _run(arguments: argparse.Namespace) -> int:
    kubeconfig = arguments.kubeconfig or (arguments.data_dir or default_data_dir()) / "admin.kubeconfig"
    try:
        token = anyio.run(_token, kubeconfig)
    except (OSError, TimeoutError, LookupError, ValueError) as exc:
        print(
            f"edgesite: no token: {exc or 'the API did not answer in time'} (kubeconfig {kubeconfig})", file=sys.stderr
        )
        return 1
    print(token)
    return 0


async def _token(kubeconfig: Path) -> str:
    from edgesite.client.client import Client
    from edgesite.client.http import HttpTransport
    from edgesite.client.kubeconfig import load
    from edgesite.kube.errors import ApiError
    from edgesite.kube.resources import SECRETS
    from edgesite.net.real import RealClock, RealNet

    with anyio.fail_after(_DEADLINE_S):
        transport = HttpTransport(RealNet(), RealClock(), load(kubeconfig))
        try:
            secret = await Client(transport).get(SECRETS, _SECRET, _NAMESPACE)
        except ApiError as exc:
            raise LookupError(exc.message) from None
        finally:
            await transport.close()
    data = (secret.get("data") or {}).get("tokendata")
    if not data:
        raise LookupError(f"secret {_NAMESPACE}/{_SECRET} holds no token yet; is CloudHub on?")
    return base64.b64decode(data).decode()


COMMAND = Command("token", "Print the token that an edge joins with.", _configure, _run)
