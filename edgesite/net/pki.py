"""Certificates: made in a short-lived child process, so that ``cryptography`` never stays in memory. Plain PEM comes back.

    pki = RealPki(ctx.clock)
    ca = await pki.make_ca("edgesite")
    async with pki.session() as keeper:                # one child for several certificates
        server = await keeper.issue(ca, "localhost", dns_names=["localhost"], ips=["127.0.0.1"], usages=SERVER)

Keys of certificates are ECDSA P-256, as PEM ``EC PRIVATE KEY`` (`edgesite.net.pem.to_der` gives SEC 1). All certificates are backdated, because
clocks at the edge are often wrong; a clock that is not set makes them last as if it were.

Units   Lifetimes are days, times Unix seconds.
Errors  PkiError: the request cannot be fulfilled (unreadable CSR, no common name, wrong CA). OSError: the child failed.
State   None kept; a session holds its child.
Source  KubeEdge cloud/pkg/cloudhub/servers/httpserver (subject rules, usages, lifetimes); RFC 5280, RFC 2986.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from anyio.abc import Process

    from edgesite.context import Clock

__all__ = ["BOTH", "CLIENT", "PLAUSIBLE", "SERVER", "Csr", "KeyPair", "Pki", "PkiError", "RealPki", "child_argv"]

SERVER: Final = ("serverAuth",)
CLIENT: Final = ("clientAuth",)
BOTH: Final = ("serverAuth", "clientAuth")
PLAUSIBLE: Final = 1_700_000_000.0  #: a clock that is behind this (2023) is not set
_DEADLINE_S: Final = 60.0
_ANSWER_BYTES: Final = 1 << 20


class PkiError(ValueError):
    """The certificate cannot be made from what was given."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "KeyPair(...)"  # never a key in a log


@dataclass(frozen=True, slots=True)
class Csr:
    """A certificate request and its key, PEM (`edgesite.net.pem.to_der` gives what KubeEdge sends)."""

    request: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Csr(...)"


class Pki(Protocol):
    """What makes certificates; the simulator has its own."""

    async def make_ca(self, common_name: str, *, days: int = 36500, serial: int | None = None) -> KeyPair:
        """Make a self-signed CA. KubeEdge's own: common name "KubeEdge", serial 1024."""
        ...

    async def issue(
        self,
        ca: KeyPair,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
        usages: Sequence[str] = SERVER,
        days: int = 365,
    ) -> KeyPair:
        """Make a key and a certificate signed by ``ca``. Raises PkiError."""
        ...

    async def make_csr(
        self,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
    ) -> Csr:
        """Make a key and a request for a certificate, perhaps for names and addresses. Raises PkiError."""
        ...

    async def sign_csr(
        self,
        ca: KeyPair,
        csr: bytes,
        *,
        usages: Sequence[str] = CLIENT,
        days: int = 365,
        allowed_names: Sequence[str] | None = None,
    ) -> bytes:
        """Sign a request (PEM or DER): CN and O of its subject are taken over, and with ``allowed_names`` its DNS names and
        addresses, which must be among these. Returns PEM. Raises PkiError, also for a request whose signature does not fit
        or that has no common name."""
        ...

    async def make_signing_key(self) -> bytes:
        """Make an RSA key for signatures (`edgesite.net.rsa`), PEM."""
        ...

    def session(self) -> AbstractAsyncContextManager[Pki]:
        """The same, cheaper for several certificates in a row."""
        ...


def child_argv() -> list[str]:
    """Return the command of the child process: in a frozen program that is the program itself (see `edgesite.cli.main`)."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--internal", "edgesite.net.pki_child"]
    return [sys.executable, "-I", str(Path(__file__).with_name("pki_child.py"))]


class _Requests:
    """The calls of `Pki`, as requests to a child."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def _ask(self, operation: str, **arguments: Any) -> dict[str, str]:
        raise NotImplementedError

    async def make_ca(self, common_name: str, *, days: int = 36500, serial: int | None = None) -> KeyPair:
        return _pair(await self._ask("make_ca", common_name=common_name, days=days, serial=serial))

    async def issue(
        self,
        ca: KeyPair,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
        usages: Sequence[str] = SERVER,
        days: int = 365,
    ) -> KeyPair:
        names = {"dns_names": list(dns_names), "ips": list(ips), "organizations": list(organizations)}
        return _pair(
            await self._ask("issue", **_ca(ca), common_name=common_name, usages=list(usages), days=days, **names)
        )

    async def make_csr(
        self,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
    ) -> Csr:
        names = {"dns_names": list(dns_names), "ips": list(ips)}
        made = await self._ask("make_csr", common_name=common_name, organizations=list(organizations), **names)
        return Csr(made["request"].encode(), made["key"].encode())

    async def sign_csr(
        self,
        ca: KeyPair,
        csr: bytes,
        *,
        usages: Sequence[str] = CLIENT,
        days: int = 365,
        allowed_names: Sequence[str] | None = None,
    ) -> bytes:
        request = base64.b64encode(csr).decode()
        names = None if allowed_names is None else list(allowed_names)
        wanted = {"request": request, "usages": list(usages), "days": days, "allowed_names": names}
        signed = await self._ask("sign_csr", **_ca(ca), **wanted)
        return signed["certificate"].encode()

    async def make_signing_key(self) -> bytes:
        return (await self._ask("make_signing_key"))["key"].encode()


class RealPki(_Requests):
    """One child for each call, or one for a session."""

    async def _ask(self, operation: str, **arguments: Any) -> dict[str, str]:
        async with self.session() as keeper:
            return await keeper._ask(operation, **arguments)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[_Session]:
        process = await anyio.open_process(child_argv(), stderr=subprocess.PIPE)
        try:
            yield _Session(self._clock, process)
        finally:
            with anyio.CancelScope(shield=True):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()  # it holds nothing that could be lost
                await process.aclose()


class _Session(_Requests):
    """Requests to one running child."""

    def __init__(self, clock: Clock, process: Process) -> None:
        super().__init__(clock)
        self._process = process
        assert process.stdout is not None
        self._answers = BufferedByteReceiveStream(process.stdout)
        self._turn = anyio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[_Session]:
        yield self

    async def _ask(self, operation: str, **arguments: Any) -> dict[str, str]:
        now = int(self._clock.time())
        request = {"operation": operation, "now": now, **arguments}
        if "days" in arguments and now < PLAUSIBLE:  # nothing shall have ended when the clock is set
            request["days"] = arguments["days"] + int((PLAUSIBLE - now) // 86400)
        stdin = self._process.stdin
        assert stdin is not None
        async with self._turn:
            try:
                with anyio.fail_after(_DEADLINE_S):
                    await stdin.send(json.dumps(request).encode() + b"\n")
                    line = await self._answers.receive_until(b"\n", _ANSWER_BYTES)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as exc:
                raise OSError(f"the certificate process ended early: {await self._last_words()}") from exc
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise PkiError(answer["error"])
        return answer

    async def _last_words(self) -> str:
        text = b""
        with anyio.move_on_after(1.0), contextlib.suppress(anyio.EndOfStream):
            while len(text) < 4096 and self._process.stderr is not None:
                text += await self._process.stderr.receive()
        return text.decode("utf-8", "replace").strip().rpartition("\n")[2] or "no reason given"


def _ca(ca: KeyPair) -> dict[str, str]:
    return {"ca_certificate": ca.certificate.decode("ascii"), "ca_key": ca.key.decode("ascii")}


def _pair(made: dict[str, str]) -> KeyPair:
    return KeyPair(made["certificate"].encode(), made["key"].encode())
