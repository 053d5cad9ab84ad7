"""Certificates and clocks that differ, over real TLS: OpenSSL has this machine's time, the cloud's parts one that is shifted.

``python -m conformance.clocks`` shows the same with whole programs whose clock is set while they run.
"""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import pytest
from link_site import SiteMaker
from test_link_tls import ask, certificates_of, pki_files, read_token

from edgesite.context import Context, Module, Section
from edgesite.net import pem
from edgesite.net.pki import Pki, RealPki
from edgesite.net.real import RealClock
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

DAY = 86_400.0


class Shifted(RealClock):
    """A clock that is wrong by so much."""

    def __init__(self, by_s: float) -> None:
        self.by_s = by_s

    def time(self) -> float:
        return time.time() + self.by_s


class OtherDays(RealPki):
    """Makes certificates for one day, by a clock that is wrong."""

    async def _ask(self, operation: str, **arguments: Any) -> dict[str, str]:
        return await super()._ask(operation, **arguments | ({"days": 1} if "days" in arguments else {}))


def certified(by_s: float) -> type[Module]:
    """Gives a cloud certificates of other days, while the rest of it has the right time."""

    class Certified:
        name = "certified"
        roles = frozenset({"cloud"})
        needs: frozenset[str] = frozenset()
        section = ""

        def enabled(self, settings: Section) -> bool:
            return True

        async def run(self, ctx: Context) -> None:
            ctx.services.provide(Pki, OtherDays(Shifted(by_s)))  # type: ignore[type-abstract]
            ctx.ready()
            await anyio.sleep_forever()

    return Certified


@pytest.mark.parametrize(("days", "what"), [(3650, "is not valid yet"), (-9, "has expired")], ids=["behind", "ahead"])
async def test_an_edge_with_a_wrong_clock_says_so_and_goes_on_trying(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture, days: int, what: str
) -> None:
    """For the edge's clock the cloud's certificates are of another time."""
    async with make_site(single_process=False) as site, site.cloud(certified(days * DAY)) as client:
        site.token = await read_token(client)
        async with site.edge() as edge:
            await until(lambda: f"{what} by this machine's clock, which says {time.strftime('%Y')}" in caplog.text)
            attempts = caplog.text.count("no connection to the cloud")
            await anyio.sleep(2.5)  # two attempts more
            assert caplog.text.count("no connection to the cloud") == attempts == 1
            assert not edge.meta.connected
        assert not pki_files(site, "edge-1")[1].exists()


async def test_a_certificate_that_has_expired_is_told_from_others_and_replaced_by_a_fresh_token(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_site(single_process=False) as site:
        site.values["cloud"]["modules"]["cloudHub"]["edgeCertSigningDuration"] = 1
        real, site.world = site.world, replace(site.world, clock=Shifted(-3 * DAY))
        async with site.cloud() as client:
            site.token = await read_token(client)
            await certificates_of(site, "edge-1").ensure()
        site.world = real
        assert pem.facts(pki_files(site, "edge-1")[1].read_bytes()).not_after < time.time()
        async with site.cloud() as client:
            async with site.edge() as edge:
                await until(lambda: "this node's certificate has expired" in caplog.text)
                assert not edge.meta.connected
            site.token = await read_token(client)
            async with site.edge() as edge:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
        assert "joined anew" in caplog.text


async def test_the_hub_tells_its_time_and_a_jump_of_the_edges_clock_renews_nothing(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        await certificates_of(site, "edge-1").ensure()
        before = pki_files(site, "edge-1")[1].read_bytes()
        site.world = replace(site.world, clock=Shifted(350 * DAY))
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            await until(lambda: "350d ahead of the cloud's" in caplog.text)
            assert edge.meta.connected
        assert pki_files(site, "edge-1")[1].read_bytes() == before
        certificates = certificates_of(site, "edge-1")
        assert parsedate_to_datetime(await certificates.ask_date()).timestamp() == pytest.approx(time.time(), abs=5)


async def test_a_cloud_whose_clock_is_not_set_signs_nothing(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site:
        async with site.cloud() as client:
            token = await read_token(client)
        site.world = replace(site.world, clock=Shifted(180.0 - time.time()))
        async with site.cloud():
            request = await RealPki(RealClock()).make_csr("system:node:edge-1", organizations=["system:nodes"])
            headers = {"Authorization": f"Bearer {token.split('.', 1)[1]}", "NodeName": "edge-1"}
            status, body = await ask(site, "GET", "/edge.crt", headers, pem.to_der(request.request))
            assert (status, body) == (503, b"the cloud's clock is not set")
