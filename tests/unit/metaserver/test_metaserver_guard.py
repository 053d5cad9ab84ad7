"""Who is let through: how long answers of the cloud are good for, with and without a link."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgesite.context import Section
from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.edge.metamanager.replica import KindKey
from edgesite.edge.metaserver import guard as guards
from edgesite.edge.metaserver import issuer as issuers
from edgesite.edge.metaserver import reviews
from edgesite.edge.metaserver.cloudlink import Phase
from edgesite.edge.metaserver.guard import TokenGuard
from edgesite.edge.metaserver.issuer import IssuerKeys, Standing
from edgesite.edge.metaserver.places import Places
from edgesite.edge.metaserver.scopekey import ScopeKey
from edgesite.kube import json
from edgesite.kube.errors import ApiError, unauthorized
from edgesite.kube.rbac import Attributes, Verdict
from edgesite.kube.requestinfo import parse_path, request_info
from edgesite.net.http import Headers, Request
from edgesite.net.rsa import PublicKey

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000.0


def token(word: str, expires: float = NOW + 3600) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"sub": word, "exp": expires})).decode().rstrip("=")
    return f"e30.{claims}.{word}"


@dataclass
class World:
    """A clock, a link, and a cloud that knows the tokens in ``known``."""

    now: float = 100.0
    connected: bool = True
    phase: Phase = Phase.OWN
    lost_at: float = 0.0
    known: set[str] = field(default_factory=set)
    reviews: int = 0
    gate: anyio.Event | None = None
    decisions: int = 0
    wanted: list[Attributes] = field(default_factory=list)
    here: Verdict | None = None
    standings: dict[str, Standing] = field(default_factory=dict)

    # the clock
    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return NOW + self.now - 100.0

    # the link
    async def settled(self) -> Phase:
        return self.phase

    def lose(self) -> None:
        self.connected, self.lost_at = False, self.now

    # the services
    def find(self, interface: Any) -> Any:
        assert interface in (TokenReviewer, Access)
        return self

    async def review(self, given: str, audiences: Any = ()) -> Identity:
        self.reviews += 1
        await anyio.lowlevel.checkpoint()
        if given not in self.known:
            if self.gate is not None:
                await self.gate.wait()
            raise unauthorized()
        return Identity("someone")

    async def decide(self, user: Identity, wanted: Attributes) -> Verdict:
        self.decisions += 1
        self.wanted.append(wanted)
        return Verdict(wanted.verb == "get")

    async def decide_here(self, user: Identity, wanted: Attributes) -> Verdict | None:
        return self.here

    def guard(self, minutes: float = 0.0) -> TokenGuard:
        ctx = type("Ctx", (), {"clock": self, "services": self, "node_name": "n", "log": logging.getLogger()})()
        return TokenGuard(ctx, self, self, self, Section({"offlineTokenMinutes": minutes}))  # type: ignore[arg-type]

    # the issuer
    def standing(self, given: str) -> Standing:
        return self.standings.get(given, Standing.UNKNOWN)


@dataclass
class Peer:
    address: str


async def code(
    guard: TokenGuard, given: str | None, method: str = "GET", scheme: str = "Bearer", peer: str = "127.0.0.1"
) -> int:
    """200, or the code of the refusal."""
    raw = [] if given is None else [(b"authorization", f"{scheme} {given}".encode())]
    path = "/api/v1/namespaces/default/pods/a"
    request = Request(None, method, path, Headers(raw), b"", Peer(peer))  # type: ignore[arg-type]
    try:
        await guard.admit(request, request_info(method, parse_path(path), watch=False))
    except ApiError as exc:
        return exc.code
    return 200


async def test_only_known_bearers_with_leave_come_through() -> None:
    world = World(known={token("a")})
    guard = world.guard()
    assert await code(guard, None) == 401
    assert await code(guard, token("a"), scheme="Basic") == 401
    assert await code(guard, "") == 401
    assert await code(guard, "x" * 20_000) == 401
    assert await code(guard, token("b")) == 401
    assert await code(guard, token("a", NOW - 1)) == 401
    assert await code(guard, token("a")) == 200
    assert await code(guard, token("a"), "DELETE") == 403


async def test_answers_are_kept_for_a_while_and_asked_for_once() -> None:
    world = World(known={token("a")})
    guard = world.guard()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(code, guard, token("a"))
    assert (world.reviews, world.decisions) == (1, 1)
    world.known.clear()  # it is revoked
    world.now += reviews.KEPT_S - 1
    assert await code(guard, token("a")) == 200
    world.now += 2
    assert await code(guard, token("a")) == 401
    asked = world.reviews
    assert await code(guard, token("a")) == 401
    assert world.reviews == asked, "refusals are kept, too"


async def test_without_a_link_nobody_comes_through_by_default() -> None:
    world = World(known={token("a")})
    guard = world.guard()
    assert await code(guard, token("a")) == 200
    world.lose()
    assert await code(guard, token("a")) == 503


async def test_tokens_reviewed_shortly_before_are_taken_where_that_is_wanted() -> None:
    world = World(known={token("a"), token("old"), token("short", NOW + 30)})
    guard = world.guard(minutes=10)
    for one in ("a", "old"):
        assert await code(guard, token(one)) == 200
    world.now += 700
    assert await code(guard, token("a")) == 200
    assert await code(guard, token("b")) == 401
    world.lose()
    world.now += 3600 - 710
    assert await code(guard, token("a")) == 200, "however long the link is lost, while the token lives"
    assert await code(guard, token("old")) == 503, "reviewed too long before"
    assert await code(guard, token("b")) == 401
    assert await code(guard, token("never seen")) == 503
    assert await code(guard, token("a"), "DELETE") == 503, "that was not decided before"
    world.here = Verdict(True)
    assert await code(guard, token("a"), "DELETE") == 200, "what is stored of its account decides"
    world.here = Verdict(False)
    assert await code(guard, token("a")) == 403
    world.now += 100
    assert await code(guard, token("a")) == 401, "it has expired"


async def test_pages_of_other_sites_are_not_programs_of_the_node() -> None:
    info = request_info("POST", parse_path("/api/v1/namespaces/default/pods"), watch=False)
    for site, allowed in ((b"cross-site", False), (b"same-site", False), (b"none", True), (None, True)):
        raw = [] if site is None else [(b"sec-fetch-site", site)]
        request = Request(None, "POST", "/", Headers(raw), b"", None)  # type: ignore[arg-type]
        if allowed:
            assert await guards.Open().admit(request, info) == ("", None)
        else:
            with pytest.raises(ApiError, match="other sites"):
                await guards.Open().admit(request, info)


async def test_whoever_may_see_one_object_may_list_it_alone() -> None:
    world = World(known={token("a")})
    guard = world.guard()
    raw = [(b"authorization", f"Bearer {token('a')}".encode())]
    target = "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dmine"
    request = Request(None, "GET", target, Headers(raw), b"", None)  # type: ignore[arg-type]
    with pytest.raises(ApiError, match="forbidden"):
        await guard.admit(request, request_info("GET", parse_path(target.partition("?")[0]), watch=True))
    asked = world.wanted[-1]
    assert (asked.verb, asked.name, asked.field_selector) == ("watch", "mine", "metadata.name=mine")
    key = ScopeKey.of(KindKey("", "v1", "configmaps"), "default", "", "metadata.name=mine")
    assert (await guard.still_refused(f"Bearer {token('a')}", key)) is not None
    assert world.wanted[-1].name == "mine", "also when a watch is looked at again"


async def test_long_names_are_not_kept() -> None:
    world = World(known={token("a")})
    guard = world.guard()
    raw = [(b"authorization", f"Bearer {token('a')}".encode())]
    path = "/api/v1/namespaces/default/pods/" + "x" * 30_000
    request = Request(None, "GET", path, Headers(raw), b"", None)  # type: ignore[arg-type]
    await guard.admit(request, request_info("GET", parse_path(path), watch=False))
    assert all(len(key) == 32 for key in guard._verdicts._good)  # type: ignore[arg-type]


async def test_a_token_may_say_anything_of_its_end() -> None:
    for end in ("1" + "0" * 400, "-5", '"soon"', "true", "1e300"):
        claims = base64.urlsafe_b64encode(b'{"exp":%b}' % end.encode()).decode().rstrip("=")
        assert await code(World().guard(), f"e30.{claims}.x") == 401


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "REVIEWS_OF_PEER", 3)
    monkeypatch.setattr(reviews, "WAITING", 2)
    world = World()
    guard = world.guard()
    codes = []

    async def one(n: int) -> None:
        codes.append(await code(guard, token(str(n))))

    async with anyio.create_task_group() as tasks:
        for n in range(10):
            tasks.start_soon(one, n)
    assert sorted(set(codes)) == [401, 429]
    for n in range(2000):
        await one(n)
    assert len(guard._identities) <= reviews.REFUSED


async def test_a_flood_of_made_up_tokens_leaves_others_their_way() -> None:
    world = World(known={token("known"), token("new"), token("second"), token("signed")}, gate=anyio.Event())
    world.standings = {token("signed"): Standing.SIGNED}
    guard = world.guard(minutes=10)
    assert await code(guard, token("known")) == 200
    world.now += reviews.KEPT_S + 1
    codes: list[int] = []

    async def made_up(n: int, peer: str) -> None:
        codes.append(await code(guard, token(f"made up {n}"), peer=peer))

    assert world.gate is not None
    async with anyio.create_task_group() as tasks:
        for n in range(100):
            tasks.start_soon(made_up, n, "127.0.0.1")
        await anyio.wait_all_tasks_blocked()
        assert codes == [429] * (100 - reviews.REVIEWS_OF_PEER - reviews.WAITING)
        assert await code(guard, token("new"), peer="10.0.0.7") == 200, "another peer has its own share"
        assert await code(guard, token("known")) == 200, "who was let through before needs none"
        assert await code(guard, token("signed")) == 200, "new, of the same address, but signed by the issuer"
        world.gate.set()
    assert codes.count(401) == reviews.REVIEWS_OF_PEER + reviews.WAITING, "who waited had its turn"
    assert not guard._strangers
    assert await code(guard, token("second")) == 200


async def test_forged_signatures_are_refused_without_a_review() -> None:
    world = World(standings={token(f"forged {n}"): Standing.FORGED for n in range(100)})
    guard = world.guard()
    for n in range(100):
        assert await code(guard, token(f"forged {n}")) == 401
    assert (world.reviews, len(guard._identities)) == (0, 0)
    world.lose()
    assert await code(guard, token("forged 1")) == 401
    assert await code(guard, token("a", NOW - 1)) == 401
    assert await code(guard, token("a")) == 503, "of others nothing can be said without a link"


async def test_places_are_given_in_order_and_come_back_whatever_happens() -> None:
    places = Places(3, 2, 4, 5.0)
    order: list[str] = []
    gate = anyio.Event()

    async def take(share: str, name: str) -> None:
        async with places.one(share):
            order.append(name)
            await gate.wait()

    async with anyio.create_task_group() as tasks:
        for name in ("a1", "a2", "a3", "b1", "b2"):
            tasks.start_soon(take, name[0], name)
        await anyio.wait_all_tasks_blocked()
        assert order == ["a1", "a2", "b1"], "each share has its bound, and all of them together"
        with anyio.move_on_after(0):
            await take("c", "cancelled while it waits")
        for name in ("c1", "c2"):
            tasks.start_soon(take, name[0], name)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ApiError, match="too many"):
            await take("d", "no room to wait")
        gate.set()
    assert order == ["a1", "a2", "b1", "a3", "b2", "c1", "c2"]
    assert len(places) == 0


async def test_signatures_are_told_by_the_keys_of_the_issuer() -> None:
    mine, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    public = PublicKey.load(
        mine.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    elliptic = {"kty": "EC", "kid": "e", "alg": "ES256", "crv": "P-256", "x": "AA", "y": "AA"}
    broken = {"kty": "RSA", "kid": "b", "n": "?", "e": "AQAB"}
    keys = IssuerKeys(None, None, None)  # type: ignore[arg-type]
    signed = jwt.encode({"sub": "a"}, mine, algorithm="RS256", headers={"kid": public.kid})
    assert keys.standing(signed) is Standing.UNKNOWN, "nothing is known yet"
    keys._keys = issuers._keys_in({"keys": [public.jwk(), elliptic, broken, {"kty": "RSA"}, "x"]})
    assert list(keys._keys) == [public.kid]
    assert keys.standing(signed) is Standing.SIGNED
    assert keys.standing(signed[:-8] + "AAAAAAAA") is Standing.FORGED
    assert (
        keys.standing(jwt.encode({"sub": "a"}, other, algorithm="RS256", headers={"kid": public.kid}))
        is Standing.FORGED
    )
    assert not keys._missed.is_set()
    of_another = jwt.encode({"sub": "a"}, other, algorithm="RS256", headers={"kid": "new"})
    for given in (of_another, jwt.encode({"sub": "a"}, mine, algorithm="RS256"), "opaque", "a.b.c", "é.é.é"):
        assert keys.standing(given) is Standing.UNKNOWN, given
    assert keys._missed.is_set(), "the keys are asked for anew"


async def test_settings_are_taken_over_while_it_runs() -> None:
    world = World(known={token("a")})
    guard = world.guard()
    assert await code(guard, token("a")) == 200
    guard.reload(Section({"offlineTokenMinutes": 10, "apiAudiences": []}))
    world.lose()
    assert await code(guard, token("a")) == 200, "what was said before still counts"
    world.connected = True
    guard.reload(Section({"offlineTokenMinutes": 10, "apiAudiences": ["other"]}))
    asked = world.reviews
    assert await code(guard, token("a")) == 200
    assert world.reviews == asked + 1, "it was reviewed for other audiences"


async def test_refusals_push_nothing_out_that_is_needed_offline() -> None:
    world = World(known={token("a"), token("revoked")})
    guard = world.guard(minutes=10)
    for one in ("a", "revoked"):
        assert await code(guard, token(one)) == 200
    world.known.remove(token("revoked"))
    world.now += reviews.KEPT_S + 1
    assert await code(guard, token("revoked")) == 401
    for n in range(guards.TOKENS + 100):
        assert await code(guard, token(f"forged {n}")) == 401
    for n in range(reviews.REFUSED + 10):
        await code(guard, token("a"), f"VERB{n}")
    assert len(guard._identities) <= reviews.REFUSED + 1
    assert len(guard._verdicts) <= reviews.REFUSED + 2
    world.lose()
    assert await code(guard, token("a")) == 200
    assert await code(guard, token("revoked")) == 503, "its old review is forgotten, though the refusal was pushed out"
