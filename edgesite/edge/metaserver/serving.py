"""The certificate that MetaServer shows: the configured one, else one of the cluster, else one of our own making.

    tlsCertFile, tlsPrivateKeyFile    where they are set to other files than EdgeHub's, whose certificate is for clients alone
    the cluster's                     asked of the cloud (signer kubernetes.io/kubelet-serving), for the node's names and addresses, localhost and
                                      169.254.30.10; pods trust it by the CA in their service account's volume
    our own                           where no cloud gives one: its CA is ``pki/metaserver-ca.crt`` in the data folder

Units   Seconds.
Errors  None leave but cancellation: what hinders is logged and tried again.
State   ``pki/metaserver.crt`` and ``.key`` in the data folder, PEM, renewed when four fifths of their time are over.
Source  KubeEdge v1.17, edge/pkg/metamanager/metaserver/certificate (signing request through the hub).
"""

from __future__ import annotations

import base64
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.durable import replace_file
from edgesite.edge.edgehub.link import Link
from edgesite.edge.metaserver.listeners import plain
from edgesite.kube.errors import ApiError
from edgesite.net import address as addresses
from edgesite.net import pem, tls
from edgesite.net.pki import Pki, PkiError, RealPki
from edgesite.wire.message import InvalidMessage, MessageMaker, Operation, error_status

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["ServingCertificate"]

_SIGNER: Final = "kubernetes.io/kubelet-serving"
_USAGES: Final = ("digital signature", "key encipherment", "server auth")
_WORD: Final = "certificatesigningrequest"
_ASK_S: Final = 30.0  #: in which a cloud has signed, before we make one of our own
_LOOK_S: Final = 3600.0
_RETRY_S: Final = 2.0
_DAYS: Final = 365
_DEFAULTS: Final = ("/etc/kubeedge/certs/server.crt", "")


class ServingCertificate:
    """`context` is what listeners show, `keep` renews it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._config = ctx.config
        self._reloaded = anyio.Event()
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        folder = ctx.data_dir / "pki"
        self._files = folder / "metaserver.crt", folder / "metaserver.key"
        self._ca = folder / "metaserver-ca.crt"

    def reload(self, config: Section) -> None:
        """Look at the files anew, which may be others now."""
        self._config = config
        self._reloaded.set()

    def _configured(self) -> tuple[Path, Path] | None:
        config = self._config
        names = str(config.get("tlsCertFile") or ""), str(config.get("tlsPrivateKeyFile") or "")
        hub = self._ctx.settings.get("modules", {}).get("edgeHub") or {}
        if not all(names) or names[0] in (*_DEFAULTS, str(hub.get("tlsCertFile") or "")):
            return None
        return Path(names[0]), Path(names[1])

    async def context(self) -> ssl.SSLContext:
        """Return what to show, as soon as there is something."""
        waits = False
        while True:
            configured = self._configured()
            try:
                if configured is None and await self._left_s() <= 0:
                    if not waits:
                        waits = True
                        self._ctx.ready()  # a new node may have to wait for its cloud
                    await self._make()
                return await self._ctx.threads.run(_load, *(configured or self._files))
            except (OSError, ValueError, PkiError, ssl.SSLError, ApiError, InvalidMessage) as exc:
                self._ctx.log.warning("there is no certificate to serve with yet: %s", exc)
            await self._due(_RETRY_S * (1 + self._ctx.random.random()))

    async def _due(self, wait_s: float) -> None:
        """Wait for so long, or until the configuration is read again."""
        with anyio.move_on_after(wait_s):
            await self._reloaded.wait()
        self._reloaded = anyio.Event()

    async def keep(self, context: ssl.SSLContext) -> None:
        """Renew what is shown in time, and take over files that have changed; until cancelled."""
        while True:
            await self._due(_LOOK_S * (0.8 + 0.4 * self._ctx.random.random()))
            configured = self._configured()
            try:
                if configured is None and await self._is_due():
                    await self._make()
                await self._ctx.threads.run(_renew, context, *(configured or self._files))
            except (OSError, ValueError, PkiError, ssl.SSLError, ApiError, InvalidMessage) as exc:
                self._ctx.log.warning("the certificate cannot be renewed now: %s", exc)

    async def _left_s(self) -> float:
        facts = await self._ctx.threads.run(_facts, *self._files)
        return facts.not_after - self._ctx.clock.time() if facts is not None else 0.0

    async def _is_due(self) -> bool:
        facts = await self._ctx.threads.run(_facts, *self._files)
        if facts is None:
            return True
        life_s = facts.not_after - facts.not_before
        return bool(self._ctx.clock.time() > facts.not_after - life_s / 5)

    async def _make(self) -> None:
        """Raises OSError, PkiError, ApiError, InvalidMessage."""
        link = self._ctx.services.find(Link)  # type: ignore[type-abstract]
        if link is None or not link.connected:
            raise ApiError(503, "ServiceUnavailable", "there is no link to the cloud that could sign one")
        pki: Pki = self._ctx.services.find(Pki) or RealPki(self._ctx.clock)  # type: ignore[type-abstract]
        files = await self._from_cloud(pki)
        if files is None:
            self._ctx.log.warning("the cloud signs no certificates: clients must trust %s", self._ca)
            files = await self._own(pki)
        await self._ctx.threads.run(_write, files)

    async def _from_cloud(self, pki: Pki) -> dict[Path, bytes] | None:
        """A certificate of the cluster; None if there is none to be had. Raises PkiError."""
        node = self._ctx.node_name
        asked = await pki.make_csr(
            f"system:node:{node}", organizations=["system:nodes"], dns_names=[node, "localhost"], ips=self._addresses()
        )
        name = f"metaserver-{node}-{self._maker.new_id()[:8]}"
        spec = {
            "request": base64.b64encode(asked.request).decode(),
            "signerName": _SIGNER,
            "usages": list(_USAGES),
        }
        deadline = self._ctx.clock.monotonic() + _ASK_S
        try:
            await self._call(Operation.INSERT, name, {"metadata": {"name": name}, "spec": spec}, _ASK_S)
            while self._ctx.clock.monotonic() < deadline:
                found = await self._call(Operation.QUERY, name, None, _ASK_S)
                if certificate := (found.get("status") or {}).get("certificate"):
                    chain = base64.b64decode(certificate)
                    return {self._files[1]: asked.key, self._files[0]: chain}
                await self._ctx.clock.sleep(0.25)
        except (ApiError, TimeoutError, LookupError, InvalidMessage) as exc:
            self._ctx.log.info("the cloud gave no certificate to serve with: %s", exc)
        return None

    def _addresses(self) -> list[str]:
        """Where clients find us: the cluster signs for these everywhere, and for addresses of the node."""
        found = {"127.0.0.1": None, "169.254.30.10": None}
        for name in ("server", "podServer"):
            host = addresses.parse(plain(str(self._ctx.config.get(name) or "")) or "127.0.0.1:1").host
            try:
                if not ip_address(host).is_unspecified:
                    found[str(ip_address(host))] = None
            except ValueError:
                continue
        return list(found)

    async def _call(self, operation: str, name: str, content: Any, timeout_s: float) -> dict[str, Any]:
        """Raises ApiError, InvalidMessage, TimeoutError, LookupError."""
        message = self._maker.make("edged", "meta", operation, f"default/{_WORD}/{name}", content)
        answer = await self._ctx.bus.call("websocket", message, timeout_s=timeout_s)
        content = answer.content
        if isinstance(content, dict) and "Object" in content:
            if status := error_status(content.get("Err")):
                raise ApiError.from_status(status)
            content = content["Object"]
        if status := error_status(content):
            raise ApiError.from_status(status)
        if not isinstance(content, dict):
            raise InvalidMessage("the answer is no signing request")
        return content

    async def _own(self, pki: Pki) -> dict[Path, bytes]:
        """Raises PkiError."""
        node = self._ctx.node_name
        ips = self._addresses()
        async with pki.session() as maker:
            ca = await maker.make_ca(f"{node}-metaserver-ca", days=_DAYS)
            made = await maker.issue(ca, node, dns_names=[node, "localhost"], ips=ips, days=_DAYS)
        return {
            self._ca: ca.certificate,
            self._files[1]: made.key,
            self._files[0]: made.certificate + ca.certificate,
        }


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises OSError."""
    return tls.server_context(certificate, key)


def _renew(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Raises OSError."""
    tls.renew(context, certificate, key, client_ca=None)


def _facts(certificate: Path, key: Path) -> pem.CertificateFacts | None:
    try:
        return pem.facts(certificate.read_bytes()) if key.is_file() else None
    except (OSError, ValueError):
        return None


def _write(files: dict[Path, bytes]) -> None:
    """Raises OSError."""
    for path, data in files.items():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, data)
