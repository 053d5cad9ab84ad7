"""Authorisation at the node: HTTPS, bearer tokens of service accounts, and what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from metaserver_site import OBJECTS, MetaSite, Program, connected, meta_site

# isort: split
from link_site import Edge, node_object

from edgesite.client import Client
from edgesite.controlplane.certificates.module import CertificatesModule
from edgesite.controlplane.cluster import InformersModule
from edgesite.edge.access.module import AccessModule, _Access
from edgesite.edge.metaserver import guard, reviews, server
from edgesite.edge.metaserver.issuer import IssuerKeys
from edgesite.kube.resources import CONFIG_MAPS, NODES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS
from edgesite.net import tls
from edgesite.net.client import HttpClient
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.waiting import DEADLINE_S

pytestmark = pytest.mark.anyio


@dataclass
class Secured:
    site: MetaSite
    client: Client
    edge: Edge
    ca: bytes

    def program(self, token: str = "") -> Program:
        made = self.site.program
        made.http = HttpClient(
            RealNet(),
            made.address,
            tls=tls.client_context(ca=self.ca),
            server_hostname="127.0.0.1",
            token=token or None,
        )
        return made

    async def token(self, account: str, *, audiences: list[str] | None = None) -> str:
        """A token of a service account, which is made if it is not there."""
        metadata = {"name": account, "namespace": "default"}
        found = await self.client.list(SERVICE_ACCOUNTS, "default", field_selector=f"metadata.name={account}")
        if not found["items"]:
            await self.client.create(
                SERVICE_ACCOUNTS, {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": metadata}
            )
        request: Any = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": metadata}
        request["spec"] = {"expirationSeconds": 3600, **({"audiences": audiences} if audiences else {})}
        made = await self.client.create(SERVICE_ACCOUNTS, request, name=account, subresource="token")
        return str(made["status"]["token"])

    async def let_view(self, account: str) -> None:
        """Let an account read ConfigMaps in namespace default."""
        api = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": f"{account}-view", "namespace": "default"},
        }
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
        await self.client.create(ROLES, {"kind": "Role", **api, "rules": rules})
        await self.client.create(
            ROLE_BINDINGS,
            {
                "kind": "RoleBinding",
                **api,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"{account}-view"},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}],
            },
        )


@asynccontextmanager
async def secured(folder: Path, **settings: Any) -> AsyncIterator[Secured]:
    async with (
        meta_site(folder, gate=True, **settings) as site,
        site.cloud(CertificatesModule, InformersModule) as client,
    ):
        await client.create(NODES, node_object("edge-1"))
        async with site.edge(AccessModule) as edge:
            await connected(edge)
            made = Secured(site, client, edge, (folder / "cloud" / "pki" / "ca.crt").read_bytes())
            with anyio.fail_after(60):
                while not await is_serving(made):  # noqa: ASYNC110 - its certificate comes from the cloud
                    await anyio.sleep(0.05)
            yield made


async def is_serving(made: Secured) -> bool:
    try:
        return (await made.program().ask("GET", "/healthz")).status == 200
    except OSError:
        return False


async def test_tokens_are_reviewed_and_each_request_is_decided(tmp_path: Path) -> None:
    async with secured(tmp_path) as it:
        await it.client.create(
            CONFIG_MAPS, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}}
        )
        good = await it.token("viewer")
        await it.let_view("viewer")
        viewer = it.program(good)
        assert (await viewer.get(f"{OBJECTS}/a"))["metadata"]["name"] == "a"
        refused = await viewer.ask("POST", OBJECTS, {"metadata": {"name": "b"}})
        assert refused.status == 403, refused.body
        assert b'cannot create resource \\"configmaps\\"' in refused.body
        assert (await viewer.ask("GET", "/api/v1/namespaces/default/secrets")).status == 403
        assert (await viewer.ask("GET", "/api/v1/nodes")).status == 403
        assert (await it.program().ask("GET", OBJECTS)).status == 401
        assert (await it.program("no.such.token").ask("GET", OBJECTS)).status == 401
        header, payload, signature = good.split(".")
        forged = f"{header}.{payload}.{signature[:-6]}AAAAAA"
        assert (await it.program(forged).ask("GET", OBJECTS)).status == 401
        elsewhere = await it.token("viewer", audiences=["vault"])
        assert (await it.program(elsewhere).ask("GET", OBJECTS)).status == 401
        nobody = await it.token("nobody")
        assert (await it.program(nobody).ask("GET", OBJECTS)).status == 403
        async with viewer.watch(f"{OBJECTS}?watch=true") as lines:
            assert (await lines.seen())[:2] == ("ADDED", "a")
        refused = await it.program(nobody).ask("GET", f"{OBJECTS}?watch=true")
        assert refused.status == 403


async def test_a_revoked_token_is_refused_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "KEPT_S", 0.2)
    async with secured(tmp_path) as it:
        token = await it.token("viewer")
        await it.let_view("viewer")
        program = it.program(token)
        assert (await program.ask("GET", OBJECTS)).status == 200
        await it.client.delete(SERVICE_ACCOUNTS, "viewer", "default")
        with anyio.fail_after(60):
            while (await program.ask("GET", OBJECTS)).status != 401:  # noqa: ASYNC110 - it is kept for a while
                await anyio.sleep(0.05)


async def test_who_shares_a_watch_does_not_lose_it_with_anothers_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "KEPT_S", 0.2)
    monkeypatch.setattr(server, "BOOKMARK_S", 0.5)
    monkeypatch.setattr(server, "LOOK_S", 0.2)
    async with secured(tmp_path) as it:
        first, second = it.program(await it.token("first")), it.program(await it.token("second"))
        for account in ("first", "second"):
            await it.let_view(account)
        since = (await first.get(OBJECTS))["metadata"]["resourceVersion"]
        target = f"{OBJECTS}?watch=true&resourceVersion={since}"
        async with first.watch(target) as kept, second.watch(target) as lost:
            await it.client.delete(SERVICE_ACCOUNTS, "second", "default")
            event = await lost.next()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 401)
            await it.client.create(
                CONFIG_MAPS,
                {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}},
            )
            assert (await kept.seen())[:2] == ("ADDED", "a")


async def test_who_may_read_one_object_lists_and_watches_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "KEPT_S", 0.2)
    monkeypatch.setattr(server, "BOOKMARK_S", 0.3)
    monkeypatch.setattr(server, "LOOK_S", 0.1)
    looked, look = anyio.Event(), guard.TokenGuard.still_refused

    async def looks(*given: Any) -> Any:
        refused = await look(*given)
        looked.set()
        return refused

    monkeypatch.setattr(guard.TokenGuard, "still_refused", looks)
    async with secured(tmp_path) as it:
        for name in ("mine", "other"):
            metadata = {"name": name, "namespace": "default"}
            await it.client.create(CONFIG_MAPS, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata})
        token = await it.token("one")
        await it.let_view("one")
        rules = [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["list", "watch"]}
        ]
        await it.client.patch(ROLES, "one-view", {"rules": rules}, "default")
        program = it.program(token)
        for query in (
            "",
            "?fieldSelector=metadata.name%3Dother",
            "?watch=true",
            "?fieldSelector=metadata.name!%3Dother",
        ):
            assert (await program.ask("GET", OBJECTS + query)).status == 403, query
        alone = f"{OBJECTS}?fieldSelector=metadata.name%3Dmine"
        assert [one["metadata"]["name"] for one in (await program.get(alone))["items"]] == ["mine"]
        async with program.watch(f"{alone}&watch=true") as lines:
            assert (await lines.seen())[:2] == ("ADDED", "mine")
            for name in ("other", "mine"):
                await it.client.patch(CONFIG_MAPS, name, {"data": {"k": "v"}}, "default")
            assert (await lines.seen())[:2] == ("MODIFIED", "mine")
            with anyio.fail_after(60):
                await looked.wait()
            await it.client.patch(CONFIG_MAPS, "mine", {"data": {"k": "w"}}, "default")
            assert (await lines.seen())[:2] == ("MODIFIED", "mine")


async def test_a_flood_of_forged_tokens_keeps_no_new_honest_one_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them from one address, and the cloud slow: what the issuer has not signed never comes to it."""
    reviewed: list[str] = []
    review, fetch, fetched = _Access.review, IssuerKeys._fetch, anyio.Event()

    async def slow(self: Any, token: str, audiences: Any = ()) -> Any:
        reviewed.append(token)
        await anyio.sleep(0.2)
        return await review(self, token, audiences)

    async def tells(self: Any) -> bool:
        done = await fetch(self)
        fetched.set()
        return done

    monkeypatch.setattr(_Access, "review", slow)
    monkeypatch.setattr(IssuerKeys, "_fetch", tells)
    async with secured(tmp_path) as it:
        with anyio.fail_after(DEADLINE_S):
            await fetched.wait()
        honest = await it.token("viewer")
        await it.let_view("viewer")
        codes: list[int] = []

        async def flood(at: int) -> None:
            program = it.program(honest[:-12] + f"{at:08x}AAAA")
            for _ in range(5):
                codes.append((await program.ask("GET", OBJECTS)).status)

        async with anyio.create_task_group() as tasks:
            for at in range(40):
                tasks.start_soon(flood, at)
            with anyio.fail_after(DEADLINE_S):
                while len(codes) < 20:  # noqa: ASYNC110 - the flood is under way
                    await anyio.sleep(0.01)
            assert (await it.program(honest).ask("GET", OBJECTS)).status == 200
        assert set(codes) == {401}
        assert set(reviewed) == {honest}


async def test_the_certificate_is_taken_over_from_files_that_are_named_while_it_runs(tmp_path: Path) -> None:
    async with secured(tmp_path) as it:
        async with RealPki(RealClock()).session() as maker:
            ca = await maker.make_ca("another-ca", days=1)
            made = await maker.issue(ca, "edge-1", dns_names=["localhost"], ips=["127.0.0.1"], days=1)
        names = {"tlsCertFile": tmp_path / "new.crt", "tlsPrivateKeyFile": tmp_path / "new.key"}
        names["tlsPrivateKeyFile"].write_bytes(made.key)
        names["tlsCertFile"].write_bytes(made.certificate + ca.certificate)
        shown = it.program()
        assert (await shown.ask("GET", "/healthz")).status == 200
        values = it.edge.host.settings.plain()
        values["modules"]["metaManager"]["metaServer"] |= {name: str(path) for name, path in names.items()}
        taken = it.edge.host.reload(values)
        assert {path[-1] for path in taken.changed} == set(names)
        it.ca = ca.certificate
        with anyio.fail_after(DEADLINE_S):
            while not await is_serving(it):  # noqa: ASYNC110 - it is read in a thread
                await anyio.sleep(0.02)
        assert (await shown.ask("GET", "/healthz")).status == 200, "who is connected stays so"
