"""Settings of both ends of the link, and certificate files, that change while they run: the connection stays."""

from __future__ import annotations

import base64
import copy
import re
import ssl
from pathlib import Path
from typing import Any

import anyio
import pytest
from link_site import Edge, Site, SiteMaker, create_account

from edgesite.client import Client
from edgesite.context import Section
from edgesite.edge.edgehub.link import Link
from edgesite.kube.resources import SECRETS
from edgesite.net import pem
from edgesite.net.pki import SERVER, RealPki
from edgesite.net.real import RealClock
from edgesite.runtime.role import RoleHost
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio


def reload(host: RoleHost, section: str, **members: Any) -> None:
    values = copy.deepcopy(host.settings.plain())
    values["modules"][section] |= members
    host.reload(values)


async def read_token(client: Client) -> str:
    secret = await client.get(SECRETS, "tokensecret", "kubeedge")
    return base64.b64decode(secret["data"]["tokendata"]).decode()


async def shown(port: int) -> bytes:
    """The certificate that a port shows to who connects now; DER."""
    text = await anyio.to_thread.run_sync(ssl.get_server_certificate, ("127.0.0.1", port))
    return pem.to_der(text.encode())


async def until_shown(site: Site, wanted: Any) -> None:
    async def is_shown() -> bool:
        return bool(wanted(await shown(site.bootstrap_port)))

    await until(is_shown)


async def joined(site: Site, client: Client, edge: Edge) -> Any:
    with anyio.fail_after(DEADLINE_S):
        await edge.meta.wait_connected()
    await create_account(client)
    return edge.host.services.get(Link)._connection  # type: ignore[type-abstract, attr-defined]


async def test_limits_hold_for_the_connection_that_there_is(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        async with site.edge() as edge:
            connection = await joined(site, client, edge)
            reload(edge.host, "edgeHub", heartbeat=2, messageQPS=7, messageBurst=3)
            limits = connection.session.limits
            assert (limits.heartbeat_s, limits.rate, limits.own_rate, limits.burst) == (2.0, 7.0, 7.0, 3)
            assert site.cloud_host is not None
            reload(site.cloud_host, "cloudHub", keepaliveInterval=90, nodeLimit=1)
            async with site.edge("edge-2"):
                await until(lambda: "1 nodes are connected, which is the limit" in caplog.text)
            reload(site.cloud_host, "cloudHub", nodeLimit=2)
            async with site.edge("edge-2") as second:
                with anyio.fail_after(DEADLINE_S):
                    await second.meta.wait_connected()
            assert edge.host.services.get(Link)._connection is connection  # type: ignore[type-abstract, attr-defined]


async def test_another_name_is_in_the_certificate_and_a_token_has_its_time(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = first = await read_token(client)
        async with site.edge() as edge:
            connection = await joined(site, client, edge)
            before = await shown(site.bootstrap_port)
            assert site.cloud_host is not None
            reload(site.cloud_host, "cloudHub", dnsNames=["hub.example"], tokenRefreshDuration=48)
            await until_shown(site, lambda now: now != before and b"hub.example" in now)
            with anyio.fail_after(DEADLINE_S):
                while (second := await read_token(client)) == first:  # noqa: ASYNC110 - as above
                    await anyio.sleep(0.02)
            site.token = second
            async with site.edge("edge-2") as other:  # joins over the new certificate
                with anyio.fail_after(DEADLINE_S):
                    await other.meta.wait_connected()
            assert edge.host.services.get(Link)._connection is connection  # type: ignore[type-abstract, attr-defined]


async def test_files_that_were_replaced_are_shown_and_broken_ones_are_not(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture
) -> None:
    pki = RealPki(RealClock())
    async with make_site(single_process=False) as site:
        hub = site.values["cloud"]["modules"]["cloudHub"]
        files = [Path(hub[name]) for name in ("tlsCAFile", "tlsCAKeyFile", "tlsCertFile", "tlsPrivateKeyFile")]
        files[0].parent.mkdir()
        ca = await pki.make_ca("own", days=2)

        async def place() -> bytes:
            made = await pki.issue(ca, "hub", dns_names=["localhost"], ips=["127.0.0.1"], usages=SERVER, days=2)
            for path, data in zip(files, (ca.certificate, ca.key, made.certificate, made.key), strict=True):
                path.write_bytes(data)
            return pem.to_der(made.certificate)

        first = await place()
        async with site.cloud() as client:
            site.token = await read_token(client)
            assert await shown(site.bootstrap_port) == first
            async with site.edge() as edge:
                await joined(site, client, edge)
                second = await place()
                assert site.cloud_host is not None
                reload(site.cloud_host, "cloudHub")
                await until_shown(site, lambda now: now == second)
                assert edge.host.services.get(Link).connected  # type: ignore[type-abstract]

                files[3].write_bytes((await pki.make_ca("another", days=2)).key)
                reload(site.cloud_host, "cloudHub")
                await until(lambda: "the hub's former certificate stays" in caplog.text)
                assert await shown(site.bootstrap_port) == second
                site.token = await read_token(client)
                async with site.edge("edge-2") as other:
                    with anyio.fail_after(DEADLINE_S):
                        await other.meta.wait_connected()


async def test_the_api_makes_a_certificate_with_another_name(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud():
        assert site.cloud_host is not None
        host = site.cloud_host
        kubeconfig = await anyio.Path(site.values["api"]["adminKubeconfig"]).read_text()
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", kubeconfig)[0])
        values = copy.deepcopy(host.settings.plain())
        values["api"] |= {"certSANs": ["api.example"], "maxRequestsInFlight": 11}
        assert [one[-1] for one in host.reload(values).changed] == ["certSANs", "maxRequestsInFlight"]
        with anyio.fail_after(DEADLINE_S):
            while b"api.example" not in await shown(port):  # noqa: ASYNC110 - as above
                await anyio.sleep(0.02)
        assert isinstance(host.settings, Section)
