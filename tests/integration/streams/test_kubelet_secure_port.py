"""Port 10250: everything that the kubelet API can do, over TLS, for who shows a certificate that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from test_log_road import EdgedWithCommands, log_file, running, world

from edgesite.context import Section
from edgesite.edge.edged.server.module import KubeletApiServer
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.net import pem, tls
from edgesite.net.client import HttpClient
from edgesite.net.pki import BOTH, KeyPair, RealPki
from edgesite.net.real import RealClock, RealNet
from edgesite.net.threads import RealThreads
from edgesite.runtime.role import RoleHost

pytestmark = pytest.mark.anyio
RUN = "/run/default/web/app?cmd=true+x"


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
async def node(folder: Path, port: int, **config: Any) -> AsyncIterator[RealNet]:
    net, threads = RealNet(), RealThreads()
    kubelet = {"address": "127.0.0.1", "readOnlyPort": 0, "port": port, **config}
    settings = Section({"modules": {"edged": {"enable": True, "tailoredKubeletConfig": kubelet}}})
    modules = [EdgedWithCommands, KubeletApiServer]
    host = RoleHost(
        "edge", modules, settings, world(net, threads, single=False), data_dir=folder / "n1", node_name="n1"
    )
    async with running(host):
        yield net
    await threads.close()


async def ask(
    net: RealNet, port: int, pair: KeyPair | None, method: str, target: str, ca: bytes | None = None
) -> tuple[int, bytes]:
    identity = {"certificate": pair.certificate, "key": pair.key} if pair else {}
    context = tls.client_context(ca=ca, **identity) if ca else tls.client_context(verify=False, **identity)
    with anyio.fail_after(15):
        while True:
            try:
                async with HttpClient(net, f"127.0.0.1:{port}", tls=context, server_hostname="n1") as client:
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
        assert await ask(net, port, pairs["jane"], "GET", "/pods") == (403, b"Forbidden (user=jane)")
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
