"""Port 10250: everything that the kubelet API can do, over TLS, for who shows a certificate that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from test_log_road import EdgedWithCommands, log_file, running, world

from edgesite.context import Context, Module, Section
from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.edge.edged.server.module import KubeletApiServer
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.kube.errors import unauthorized, unavailable
from edgesite.kube.rbac import Attributes, Verdict
from edgesite.net import pem, tls
from edgesite.net.client import HttpClient
from edgesite.net.pki import BOTH, KeyPair, RealPki
from edgesite.net.real import RealClock, RealNet
from edgesite.net.threads import RealThreads
from edgesite.runtime.role import RoleHost

pytestmark = pytest.mark.anyio
RUN = "/run/default/web/app?cmd=true+x"


class Cloud:
    """What module ``access`` says of the cloud: token "robot-1" is a robot's, who may read metrics; jane may do everything."""

    name = "access"
    roles = frozenset({"edge"})
    needs: frozenset[str] = frozenset()
    section = ""
    asked: list[str]
    reachable = True

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        Cloud.asked, Cloud.reachable = [], True
        ctx.services.provide(TokenReviewer, self)  # type: ignore[type-abstract]
        ctx.services.provide(Access, self)  # type: ignore[type-abstract]
        ctx.ready()
        await anyio.sleep_forever()

    async def review(self, token: str, audiences: Any = ()) -> Identity:
        self._note("token")
        if token != "robot-1":
            raise unauthorized()
        return Identity("system:serviceaccount:default:robot", ("system:authenticated",), "u1")

    async def decide(self, user: Identity, wanted: Attributes) -> Verdict:
        self._note(f"{user.name} {wanted.verb} {wanted.resource}/{wanted.subresource} {wanted.name}")
        return Verdict(user.name == "jane" or (wanted.verb, wanted.subresource) == ("get", "metrics"))

    async def decide_here(self, user: Identity, wanted: Attributes) -> Verdict | None:
        return None

    def _note(self, what: str) -> None:
        if not Cloud.reachable:
            raise unavailable("there is no link to the cloud")
        Cloud.asked.append(what)


async def callers(folder: Path) -> dict[str, KeyPair]:
    async with RealPki(RealClock()).session() as pki:
        ca, other = await pki.make_ca("kubernetes"), await pki.make_ca("kubernetes")
        found = {
            "apiserver": await pki.issue(ca, "kube-apiserver-kubelet-client", usages=BOTH),
            "master": await pki.issue(ca, "admin", organizations=["system:masters"], usages=BOTH),
            "jane": await pki.issue(ca, "jane", organizations=["dev"], usages=BOTH),
            "stranger": await pki.issue(other, "kube-apiserver", organizations=["system:masters"], usages=BOTH),
        }
    (folder / "ca.crt").write_bytes(ca.certificate)
    return found


@asynccontextmanager
async def node(folder: Path, port: int, *more: type[Module], **config: Any) -> AsyncIterator[RealNet]:
    net, threads = RealNet(), RealThreads()
    kubelet = {"address": "127.0.0.1", "readOnlyPort": 0, "port": port, **config}
    settings = Section({"modules": {"edged": {"enable": True, "tailoredKubeletConfig": kubelet}}})
    modules = [EdgedWithCommands, KubeletApiServer, *more]
    host = RoleHost(
        "edge", modules, settings, world(net, threads, single=False), data_dir=folder / "n1", node_name="n1"
    )
    async with running(host):
        yield net
    await threads.close()


async def ask(
    net: RealNet,
    port: int,
    pair: KeyPair | None,
    method: str,
    target: str,
    ca: bytes | None = None,
    token: str | None = None,
) -> tuple[int, bytes]:
    identity = {"certificate": pair.certificate, "key": pair.key} if pair else {}
    context = tls.client_context(ca=ca, **identity) if ca else tls.client_context(verify=False, **identity)
    with anyio.fail_after(60):
        while True:
            try:
                async with HttpClient(
                    net, f"127.0.0.1:{port}", tls=context, server_hostname="n1", token=token
                ) as client:
                    answer = await client.request(method, target)
                    return answer.status, answer.body
            except ConnectionRefusedError:
                await anyio.sleep(0.02)


async def free_port(net: RealNet) -> int:
    probe = await net.listen(anyio.abc.SocketStream, "127.0.0.1:0")  # type: ignore[arg-type]
    await probe.close()
    return int(probe.address.rpartition(":")[2])


async def test_who_may_do_what(tmp_path: Path) -> None:
    pairs, port = await callers(tmp_path), await free_port(RealNet())
    log_file(tmp_path, "n1", b"line")
    x509 = {"x509": {"clientCAFile": str(tmp_path / "ca.crt")}, "anonymous": {"enabled": True}}
    async with node(tmp_path, port, authentication=x509) as net:
        for name in ("apiserver", "master"):
            assert await ask(net, port, pairs[name], "POST", RUN) == (200, b"true x")
            assert await ask(net, port, pairs[name], "GET", "/containerLogs/default/web/app") == (200, b"line\n")
        assert await ask(net, port, pairs["jane"], "GET", "/pods") == (503, b"the cloud cannot be asked now")
        assert (await ask(net, port, None, "GET", "/healthz"))[0] == 401, "nobody is anonymous"
        with pytest.raises(OSError):  # noqa: PT011 - TLS 1.3 tells late, and in several ways
            await ask(net, port, pairs["stranger"], "GET", "/healthz")
        made = (tmp_path / "n1/pki/kubelet.crt").read_bytes()
        assert (await ask(net, port, pairs["master"], "GET", "/healthz", ca=made)) == (200, b"ok")
        assert (tmp_path / "n1/pki/kubelet.key").stat().st_mode & 0o777 == 0o600
    async with node(tmp_path, port, authentication=x509, authorization={"mode": "AlwaysAllow"}) as net:
        assert (await ask(net, port, pairs["jane"], "POST", RUN))[0] == 200
        assert (tmp_path / "n1/pki/kubelet.crt").read_bytes() == made, "a certificate that holds is kept"
        assert pem.facts(made).common_name == "n1"


async def test_the_cloud_decides_on_tokens_and_certificates(tmp_path: Path) -> None:
    pairs, port = await callers(tmp_path), await free_port(RealNet())
    x509 = {"x509": {"clientCAFile": str(tmp_path / "ca.crt")}}
    async with node(tmp_path, port, Cloud, authentication=x509) as net:
        assert (await ask(net, port, pairs["jane"], "POST", RUN)) == (200, b"true x")
        for _ in range(2):  # the second answer is remembered
            assert (await ask(net, port, None, "GET", "/metrics", token="robot-1"))[0] == 200
        refused = (
            b"Forbidden (user=system:serviceaccount:default:robot, verb=create, resource=nodes, subresource=proxy)"
        )
        assert await ask(net, port, None, "POST", RUN, token="robot-1") == (403, refused)
        assert await ask(net, port, None, "GET", "/pods", token="forged") == (401, b"Unauthorized")
        assert Cloud.asked == [
            "jane create nodes/proxy n1",
            "token",
            "system:serviceaccount:default:robot get nodes/metrics n1",
            "system:serviceaccount:default:robot create nodes/proxy n1",
            "token",
        ]
        Cloud.reachable = False
        assert (await ask(net, port, None, "GET", "/metrics", token="robot-1"))[0] == 200
        assert (await ask(net, port, None, "GET", "/healthz", token="robot-1"))[0] == 503
        assert (await ask(net, port, None, "GET", "/healthz", token="another"))[0] == 503
        assert (await ask(net, port, pairs["apiserver"], "POST", RUN))[0] == 200
    no_tokens = {**x509, "webhook": {"enabled": False}}
    async with node(tmp_path, port, Cloud, authentication=no_tokens) as net:
        assert (await ask(net, port, None, "GET", "/metrics", token="robot-1"))[0] == 401


async def test_without_a_ca_the_port_stays_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = await free_port(RealNet())
    async with node(tmp_path, port) as net:
        with pytest.raises(ConnectionRefusedError):
            async with HttpClient(net, f"127.0.0.1:{port}") as client:
                await client.request("GET", "/healthz")
    assert "clientCAFile must name the CA" in caplog.text


def test_the_node_tells_the_port_that_serves_most() -> None:
    assert EdgedSettings.of({}).port == 10350
    assert EdgedSettings.of({"tailoredKubeletConfig": {"port": 10250, "readOnlyPort": 10350}}).port == 10250
