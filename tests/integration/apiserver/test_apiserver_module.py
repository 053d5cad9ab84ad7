"""The module on a real socket: TLS, credentials, limits, health, restarts."""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path

import anyio
import pytest
from apiserver_role import role_at

from edgesite.client import Client
from edgesite.kube import json
from edgesite.kube.resources import NAMESPACES
from edgesite.net import pem
from edgesite.net.real import RealClock

pytestmark = pytest.mark.anyio
CMS = "/api/v1/namespaces/default/configmaps"
JSON = {"content-type": "application/json"}


async def test_starts_stops_and_finds_everything_again(tmp_path: Path) -> None:
    files = {}
    for _ in range(2):
        before = len(asyncio.all_tasks())
        async with role_at(tmp_path, address="127.0.0.1:0") as running:
            client = running.host.services.get(Client)
            names = {one["metadata"]["name"] for one in (await client.list(NAMESPACES))["items"]}
            assert names == {"default", "kube-system", "kube-public", "kube-node-lease", "kubeedge"}
            assert stat.S_IMODE(running.kubeconfig.stat().st_mode) == 0o600
            files = {path.name: path.read_bytes() for path in (tmp_path / "cloud" / "pki").iterdir()}
        assert len(asyncio.all_tasks()) == before
    assert files["ca.crt"] == (tmp_path / "cloud" / "pki" / "ca.crt").read_bytes()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "cloud" / "pki").iterdir())
    assert pem.facts(files["admin.crt"]).organizations == ("system:masters",)


async def test_certificates_are_kept_until_names_change(tmp_path: Path) -> None:
    pki = tmp_path / "cloud" / "pki"
    async with role_at(tmp_path):
        ca, server = (pki / "ca.crt").read_bytes(), (pki / "apiserver.crt").read_bytes()
    async with role_at(tmp_path):
        assert (pki / "apiserver.crt").read_bytes() == server
    async with role_at(tmp_path, certSANs=["other.example.com"]):
        assert (pki / "apiserver.crt").read_bytes() != server
        assert (pki / "ca.crt").read_bytes() == ca


class LeapingClock(RealClock):
    """Real time, until a test lets most of a year pass."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.passed = anyio.Event()

    def time(self) -> float:
        return super().time() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        if seconds < 3600:
            await super().sleep(seconds)
        else:
            await self.passed.wait()
            self.passed = anyio.Event()


async def test_certificates_are_renewed_while_it_runs(tmp_path: Path) -> None:
    pki, clock = tmp_path / "cloud" / "pki", LeapingClock()
    async with role_at(tmp_path, clock=clock) as running:
        host, _, port = running.address.rpartition(":")
        first, kubeconfig = (pki / "apiserver.crt").read_bytes(), running.kubeconfig.read_bytes()
        assert await shown_at(host, int(port)) == pem.to_der(first)
        clock.ahead_s = 350 * 86400.0
        clock.passed.set()
        with anyio.fail_after(60):
            shown = pem.to_der(first)
            while shown == pem.to_der(first) or running.kubeconfig.read_bytes() == kubeconfig:
                shown = await shown_at(host, int(port))
        assert shown == pem.to_der((pki / "apiserver.crt").read_bytes())


async def shown_at(host: str, port: int) -> bytes:
    """The certificate that a server shows to who connects now."""
    return pem.to_der((await anyio.to_thread.run_sync(ssl.get_server_certificate, (host, port))).encode())


async def test_who_one_is(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text('secret,bob,1,"dev,system:masters"\nplain,eve,2\n')
    whoami = ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", JSON, b"{}")
    async with role_at(tmp_path, tokenAuthFile=str(tokens)) as running:
        async with running.client(certificate=True) as admin:
            user = json.loads((await admin.request(*whoami)).body)["status"]["userInfo"]
            assert user == {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]}
        async with running.client(token="secret") as bob:
            user = json.loads((await bob.request(*whoami)).body)["status"]["userInfo"]
            assert user == {"username": "bob", "uid": "1", "groups": ["dev", "system:masters", "system:authenticated"]}
        async with running.client(token="plain") as eve:
            assert (await eve.request("GET", CMS)).status == 403
        async with running.client(token="wrong") as nobody:
            refused = await nobody.request("GET", CMS)
            assert (refused.status, json.loads(refused.body)["message"]) == (401, "Unauthorized")
        async with running.client() as anonymous:
            assert (await anonymous.request("GET", CMS)).status == 403
            assert (await anonymous.request("GET", "/readyz")).body == b"ok"
            verbose = (await anonymous.request("GET", "/readyz?verbose")).body.decode()
            assert "[+]ping ok\n" in verbose
            assert "[+]etcd ok\n" in verbose
            assert verbose.endswith("readyz check passed\n")
            assert (await anonymous.request("GET", "/livez/ping")).body == b"ok"
            assert (await anonymous.request("GET", "/healthz/no")).status == 404
            assert b"apiserver_request_total" in (await anonymous.request("GET", "/metrics")).body


async def test_limits_and_forms_of_bodies(tmp_path: Path) -> None:
    async with role_at(tmp_path) as running, running.client(certificate=True) as admin:
        big = json.dumps({"metadata": {"name": "big"}, "data": {"k": "x" * (3 << 20)}})
        refused = await admin.request("POST", CMS, JSON, big)
        assert (refused.status, json.loads(refused.body)["reason"]) == (413, "RequestEntityTooLarge")
        body = b'{"metadata":{"name":"a"},"data":{"x":"1","x":"2"}}'
        strict = await admin.request("POST", f"{CMS}?fieldValidation=Strict", JSON, body)
        assert 'duplicate field "data.x"' in json.loads(strict.body)["message"]
        made = await admin.request("POST", CMS, JSON, body)
        assert made.headers.get("warning") == '299 - "duplicate field \\"data.x\\""'
        pretty = await admin.request("GET", f"{CMS}/a?pretty=true")
        assert b'\n  "kind": "ConfigMap"' in pretty.body
        head = await admin.request("HEAD", f"{CMS}/a")
        assert (head.status, head.body) == (200, b"")
        packed = await admin.request("GET", "/openapi/v2", {"accept-encoding": "gzip"})
        assert packed.headers.get("content-encoding") == "gzip"
        tag = packed.headers["etag"]
        again = await admin.request("GET", "/openapi/v2", {"if-none-match": tag})
        assert (again.status, again.body) == (304, b"")


async def test_watch_over_tls(tmp_path: Path) -> None:
    async with role_at(tmp_path) as running, running.client(certificate=True) as admin:
        async with admin.stream("GET", f"{CMS}?watch=true") as stream:
            assert stream.headers.get("content-type") == "application/json"
            await admin.request("POST", CMS, JSON, b'{"metadata":{"name":"a"}}')
            with anyio.fail_after(60):
                assert json.loads(await stream.read())["type"] == "ADDED"
        async with admin.stream("GET", f"{CMS}?watch=true&timeoutSeconds=1&resourceVersion=1") as stream:
            with anyio.fail_after(60):
                assert (await stream.read_all()).endswith(b"}\n")
