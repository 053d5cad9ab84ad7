"""The API is a cluster's: what programs of a node ask goes on to it over TLS, with their own tokens where they must show one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from metaserver_site import OBJECTS, MetaSite, connected, meta_site

# isort: split
from link_site import node_object
from test_link_tls import read_token
from test_metaserver_tokens import Secured, is_serving

from edgesite.cloud.dynamiccontroller.module import DynamicController
from edgesite.edge.access.module import AccessModule
from edgesite.edge.metaserver import reviews, serving
from edgesite.edge.metaserver.module import MetaServer
from edgesite.kube.resources import CONFIG_MAPS, NODES

pytestmark = pytest.mark.anyio


def config_map(name: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}}


@pytest.mark.parametrize("gate", [False, True])
async def test_programs_work_on_a_cluster(tmp_path: Path, gate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_ASK_S", 1.0)
    monkeypatch.setattr(reviews, "KEPT_S", 0.2)
    async with meta_site(tmp_path, gate=gate, single_process=False) as site:
        await _play(site, tmp_path, gate=gate)


async def _play(site: MetaSite, folder: Path, *, gate: bool) -> None:
    async with site.site.cluster() as client, site.site.instance("one", DynamicController) as (port, _):
        await client.create(NODES, node_object("edge-1"))
        site.site.token = await read_token(client)
        async with site.site.edge("edge-1", MetaServer, AccessModule, servers=f"127.0.0.1:{port}") as edge:
            await connected(edge)
            program = site.program
            if gate:  # nobody signs certificates there: it makes one of its own
                with anyio.fail_after(60):
                    while not (folder / "edge-1" / "pki" / "metaserver-ca.crt").exists():  # noqa: ASYNC110
                        await anyio.sleep(0.1)
                it = Secured(site, client, edge, (folder / "edge-1" / "pki" / "metaserver-ca.crt").read_bytes())
                with anyio.fail_after(60):
                    while not await is_serving(it):  # noqa: ASYNC110
                        await anyio.sleep(0.05)
                assert (await it.program().ask("GET", OBJECTS)).status == 401
                program = it.program(await it.token("viewer"))
                assert (await program.ask("GET", OBJECTS)).status == 403
                await it.let_view("viewer")
                with anyio.fail_after(60):
                    while (await program.ask("GET", OBJECTS)).status != 200:  # noqa: ASYNC110
                        await anyio.sleep(0.2)
                assert (await program.ask("POST", OBJECTS, config_map("a"))).status == 403
            else:
                assert (await program.ask("POST", OBJECTS, config_map("a"))).status == 201
            since = (await program.get(OBJECTS))["metadata"]["resourceVersion"]
            async with program.watch(f"{OBJECTS}?watch=true&resourceVersion={since}") as lines:
                await client.create(CONFIG_MAPS, config_map("b"))
                assert (await lines.seen())[:2] == ("ADDED", "b")
