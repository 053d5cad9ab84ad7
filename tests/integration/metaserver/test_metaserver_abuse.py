"""What must not work at the HTTPS port, without a token and with one that may little: bounded, answered with a Status, and unnoticed by others."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from metaserver_site import OBJECTS, Program
from test_metaserver_tokens import Secured, secured

from edgesite.edge.metaserver import module
from edgesite.kube import json
from edgesite.kube.resources import CONFIG_MAPS, SECRETS

pytestmark = pytest.mark.anyio

HIDDEN = "aGlkZGVu"
TRAVERSALS = (
    f"{OBJECTS}/..%2fsecrets%2fkey",
    f"{OBJECTS}/../secrets/key",
    f"{OBJECTS}/%2e%2e/secrets/key",
    "/api/v1/namespaces/default%2fsecrets/configmaps/key",
    "/api/v1/namespaces/../namespaces/default/secrets/key",
    "/api/v1//namespaces/default/secrets/key",
    f"{OBJECTS}/a%00/../../secrets/key",
    f"{OBJECTS}/a%252f..%252fsecrets",
    f"{OBJECTS}/a%5c..%5csecrets",
    "/api/v1/namespaces/default/secrets/key?resourceVersion=0",
    "/api/v1/watch/namespaces/default/secrets",
    "/api/v1/namespaces/default/secrets?watch=true",
    "/api/v1/secrets",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/../../../../api/v1/secrets",
)
SELECTORS = ("labelSelector=%3D%3D%3D", "labelSelector=a+in+(", "fieldSelector=a", "fieldSelector=no.such%3Dx", "limit=x",
             "resourceVersion=abc", "timeoutSeconds=99999999999999999999", "watch=true&sendInitialEvents=true",
             "labelSelector=" + "a," * 2000)  # fmt: skip


@asynccontextmanager
async def raw(it: Secured) -> AsyncIterator[ByteStream]:
    """A connection over TLS on which anything may be said."""
    context = ssl.create_default_context(cadata=it.ca.decode())
    stream = await anyio.connect_tcp("127.0.0.1", it.site.port, ssl_context=context, tls_standard_compatible=False)
    async with stream:
        yield stream


async def said(stream: ByteStream, within_s: float = 15.0) -> bytes:
    """All that comes until the server ends it, or waits for more."""
    got = b""
    with anyio.move_on_after(within_s):
        while b"}" not in got:
            try:
                got += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                break
    return got


def check_refused(status: int, body: bytes) -> None:
    found = json.loads(body)
    assert (found["kind"], found["status"], found["code"]) == ("Status", "Failure", status), body[:300]
    assert 400 <= status < 505
    assert HIDDEN.encode() not in body


async def test_nothing_is_read_or_written_that_is_not_allowed(tmp_path: Path) -> None:
    async with secured(tmp_path) as it:
        metadata = {"name": "key", "namespace": "default"}
        secret = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": {"key": HIDDEN}}
        await it.client.create(SECRETS, secret)
        await it.client.create(
            CONFIG_MAPS, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {**metadata, "name": "a"}}
        )
        low = await it.token("viewer")
        await it.let_view("viewer")
        other = it.program(low)
        for program in (it.program(), it.program(low)):
            for target in TRAVERSALS:
                answer = await program.ask("GET", target)
                check_refused(answer.status, answer.body)
            await _bad_writes(program)
            await _bad_reads(program, has_token=program.http._token is not None)
            assert (await other.get(f"{OBJECTS}/a"))["metadata"]["name"] == "a"
        names = [one["metadata"]["name"] for one in (await it.client.list(CONFIG_MAPS, "default"))["items"]]
        assert names == ["a"]
        assert (await it.client.get(SECRETS, "key", "default"))["data"] == {"key": HIDDEN}


async def _bad_writes(program: Program) -> None:
    bodies: list[Any] = [b"", b"{", b"\xff" * 100, b"[" * 200_000, {"metadata": {"name": "never"}}]
    for body in bodies:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            target = OBJECTS if method == "POST" else f"{OBJECTS}/a"
            answer = await program.ask(method, target, body)
            check_refused(answer.status, answer.body)
    for method in ("TRACE", "OPTIONS", "PROPFIND"):
        answer = await program.ask(method, OBJECTS)
        check_refused(answer.status, answer.body)
    for sub in ("exec?command=sh", "attach", "portforward", "proxy/etc"):
        answer = await program.ask("POST", f"/api/v1/namespaces/default/pods/a/{sub}")
        check_refused(answer.status, answer.body)


async def _bad_reads(program: Program, *, has_token: bool) -> None:
    for query in SELECTORS:
        answer = await program.ask("GET", f"{OBJECTS}?{query}")
        check_refused(answer.status, answer.body)
        assert answer.status in ((400, 422) if has_token else (401, 431)), (query, answer.body)


async def test_what_is_too_much_is_cut_off(tmp_path: Path) -> None:
    async with secured(tmp_path) as it:
        low = await it.token("viewer")
        await it.let_view("viewer")
        good = it.program(low)
        head = f"POST {OBJECTS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {low}\r\n".encode()
        async with raw(it) as stream:  # a body that would never end
            await stream.send(head + b"Content-Length: 99999999999\r\n\r\n")
            assert b" 413 " in await said(stream)
        async with raw(it) as stream:  # headers without end
            await stream.send(b"GET / HTTP/1.1\r\n" + (b"X-Flood: " + b"a" * 100 + b"\r\n") * 300)
            assert b" 431 " in await said(stream)
        async with raw(it) as stream:
            await stream.send(b"\x16\x03\x01 nonsense\r\n\r\n")
            assert b" 400 " in await said(stream)
        assert (await good.ask("GET", OBJECTS)).status == 200


async def test_idle_slow_and_deaf_clients_are_not_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIMITS", module.Limits(connections=64, makes_room=True, head_timeout_s=3.0))
    async with secured(tmp_path) as it:
        low = await it.token("viewer")
        await it.let_view("viewer")
        good = it.program(low)
        since = (await good.get(OBJECTS))["metadata"]["resourceVersion"]
        async with AsyncExitStack() as stack:
            streams = []
            for at in range(100):  # more than there is room for: idle, or slow to ask
                streams.append(await stack.enter_async_context(raw(it)))
                if at % 2:
                    await streams[-1].send(b"GET /api HTTP/1.1\r\nHo")
            for _ in range(8):  # watch, and never read
                streams.append(await stack.enter_async_context(raw(it)))
                watch = f"GET {OBJECTS}?watch=true&resourceVersion={since} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {low}\r\n\r\n"
                await streams[-1].send(watch.encode())
            async with good.watch(f"{OBJECTS}?watch=true&resourceVersion={since}") as lines:
                for n in range(40):
                    metadata = {"name": f"big-{n}", "namespace": "default"}
                    data = {"x": "x" * 100_000}
                    await it.client.create(
                        CONFIG_MAPS, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data}
                    )
                assert [(await lines.seen())[1] for _ in range(40)] == [f"big-{n}" for n in range(40)]
            with anyio.fail_after(2):
                assert (await good.ask("GET", f"{OBJECTS}/big-1")).status == 200
