"""The API of the cloud side from this host: which kubeconfig, and short questions to it.

Errors  KeadmError.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from edgesite.cli.keadm import files
from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.cli.keadm.host import Host
    from edgesite.client import Client

__all__ = ["ask", "find_kubeconfig", "make_token", "own_kubeconfigs", "read_token"]

T = TypeVar("T")
_ANSWER_S: Final = 15.0
_TOKEN_S: Final = 24 * 3600
NAMESPACE: Final = "kubeedge"


def own_kubeconfigs(host: Host) -> list[Path]:
    """The administrator's files of an API of ours on this host."""
    places = (f"{files.STATE}/cloudcore/admin.kubeconfig", f"{files.STATE}/admin.kubeconfig")
    return [host.path(one) for one in places if host.path(one).is_file()]


def find_kubeconfig(host: Host, given: str) -> Path:
    """The file that is given and there; else that of an API of ours on this host; else root's. Raises KeadmError."""
    if given and (path := Path(given)).is_file():
        return path
    if own := own_kubeconfigs(host):
        return own[0]
    if not given and (path := host.path(files.ROOT_KUBECONFIG)).is_file():
        return path
    raise KeadmError(f"there is no kubeconfig {given or files.ROOT_KUBECONFIG}, and no API of ours on this host")


def ask(kubeconfig: Path, question: Callable[[Client], Awaitable[T]], deadline_s: float = _ANSWER_S) -> T:
    """Ask the API; the question gets a client. Raises KeadmError."""
    from edgesite.client.client import Client
    from edgesite.client.http import HttpTransport
    from edgesite.client.kubeconfig import BadKubeconfig, load
    from edgesite.kube.errors import ApiError
    from edgesite.net.real import RealClock, RealNet

    async def talk() -> T:
        transport = HttpTransport(RealNet(), RealClock(), load(kubeconfig))
        try:
            with anyio.fail_after(deadline_s):
                return await question(Client(transport).named("keadm"))
        finally:
            await transport.close()

    try:
        return anyio.run(talk)
    except ApiError as exc:
        raise KeadmError(f"{exc.message} (kubeconfig {kubeconfig})") from None
    except (OSError, BadKubeconfig) as exc:  # TimeoutError is an OSError
        raise KeadmError(f"the API cannot be reached by {kubeconfig}: {exc or 'no answer in time'}") from None


def read_token(kubeconfig: Path) -> str:
    """The join token that the cloud role keeps. Raises KeadmError."""
    return _data_of(kubeconfig, "tokensecret", "tokendata")[0].decode()


def make_token(kubeconfig: Path, node: str) -> str:
    """A token of a day for one node alone, which may exist already. Raises KeadmError."""
    from edgesite.cloud.cloudhub import jointoken

    certificate, key = _data_of(kubeconfig, "casecret", "cadata", "cakeydata")
    return jointoken.make(certificate, key, int(time.time()) + _TOKEN_S, node)


def _data_of(kubeconfig: Path, name: str, *members: str) -> list[bytes]:
    from edgesite.kube.resources import SECRETS

    async def question(client: Client) -> dict[str, str]:
        return (await client.get(SECRETS, name, NAMESPACE)).get("data") or {}

    data = ask(kubeconfig, question)
    found = [base64.b64decode(data.get(one) or "") for one in members]
    if not all(found):
        raise KeadmError(f"Secret {NAMESPACE}/{name} holds nothing yet")
    return found
