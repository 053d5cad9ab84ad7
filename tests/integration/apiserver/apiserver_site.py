"""An API server over a real store, called in process: what the tests of this folder speak to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from edgesite.apiserver.accountkeys import AccountKeys
from edgesite.apiserver.assembly import Assembly, assemble, serve_kinds
from edgesite.apiserver.authn import User
from edgesite.apiserver.bootstrap import bootstrap
from edgesite.apiserver.selection import indexer
from edgesite.apiserver.transport import InProcessTransport
from edgesite.kube import json, schema
from edgesite.net.real import RealClock, RealDisk
from edgesite.net.rsa import PrivateKey
from edgesite.net.threads import RealThreads
from edgesite.store import Store
from edgesite.testing.simulator.pki import SimPki

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))
AGENT = "kubectl/v1.36.0 (linux/amd64)"
SCHEMAS = schema.load()


class SteppedClock(RealClock):
    """Real time, which tests may put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def obj(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    made: Assembly
    store: Store
    clock: SteppedClock
    user: User = ADMIN
    agent: str = AGENT
    sent: Mapping[str, str] = field(default_factory=dict)

    def as_user(self, name: str, *groups: str) -> Site:
        return Site(self.made, self.store, self.clock, User(name, (*groups, "system:authenticated")))

    def named(self, agent: str) -> Site:
        return Site(self.made, self.store, self.clock, self.user, agent)

    @property
    def transport(self) -> InProcessTransport:
        return InProcessTransport(self.made.server, self.user)

    async def call(
        self, method: str, target: str, body: Any = None, *, content_type: str = "application/json", **headers: str
    ) -> Answer:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        sent = {"user-agent": self.agent, **{key.replace("_", "-"): value for key, value in headers.items()}}
        if data:
            sent["content-type"] = content_type
        return Answer(*await self.transport.request(method, target, sent, data))

    async def get(self, target: str, **headers: str) -> Answer:
        return await self.call("GET", target, **headers)

    async def post(self, target: str, body: Any, **more: Any) -> Answer:
        return await self.call("POST", target, body, **more)

    async def put(self, target: str, body: Any, **more: Any) -> Answer:
        return await self.call("PUT", target, body, **more)

    async def delete(self, target: str, body: Any = None, **more: Any) -> Answer:
        return await self.call("DELETE", target, body, **more)

    async def patch(self, target: str, body: Any, kind: str = "merge", **more: Any) -> Answer:
        content_type = "application/apply-patch+yaml" if kind == "apply" else f"application/{kind}-patch+json"
        return await self.call("PATCH", target, body, content_type=content_type, **more)

    @asynccontextmanager
    async def watch(self, target: str, **headers: str) -> AsyncIterator[Callable[[], Any]]:
        """Watch; yields a function that awaits the next event as (type, object), or None at the end."""
        lines: list[bytes] = []
        async with self.transport.stream("GET", target, {"user-agent": self.agent, **headers}) as stream:
            chunks = aiter(stream)

            async def following() -> Any:
                with anyio.fail_after(60):
                    while not lines:
                        try:
                            lines.extend((await anext(chunks)).splitlines())
                        except StopAsyncIteration:
                            return None
                event = json.loads(lines.pop(0))
                return event["type"], event["object"]

            yield following


@asynccontextmanager
async def site_at(path: Path, **more: Any) -> AsyncIterator[Site]:
    """Serve what the folder holds."""
    kinds = serve_kinds(SCHEMAS, more.pop("extra", ()))
    threads = RealThreads()
    clock = SteppedClock()
    disk = RealDisk()
    signing = await SimPki(random.Random(7), clock).make_signing_key()
    more.setdefault("keys", AccountKeys.of(PrivateKey.load(signing)))
    store = await Store.open(path / "state.db", clock=clock, threads=threads, disk=disk, index=indexer(kinds))
    async with store:
        made = assemble(
            store, kinds, SCHEMAS, clock=clock, random=random.Random(7), threads=threads, version="0.1.0", **more
        )
        await bootstrap(made.registry, service_ip="10.96.0.1", address="127.0.0.1", port=6443)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            yield Site(made, store, clock)
            tasks.cancel_scope.cancel()
