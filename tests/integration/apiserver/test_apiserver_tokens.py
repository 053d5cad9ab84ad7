"""Service account tokens: asked for, checked, revoked; keys that change."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any

import pytest
from apiserver_site import Site, SteppedClock, site_at

from edgesite.apiserver.accountkeys import AccountKeys, load_or_make
from edgesite.apiserver.accounttokens import TokenSettings
from edgesite.apiserver.authn import User
from edgesite.apiserver.transport import InProcessTransport
from edgesite.kube import json, jwt, times
from edgesite.net.real import RealClock
from edgesite.net.rsa import PublicKey
from edgesite.testing.simulator.pki import SimPki

pytestmark = pytest.mark.anyio
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/default/secrets"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}], **spec}}


async def account(site: Site, name: str = "robot") -> dict[str, Any]:
    made = await site.post(ACCOUNTS, {"metadata": {"name": name}})
    assert made.status == 201
    return made.obj  # type: ignore[no-any-return]


async def token(site: Site, name: str = "robot", **spec: Any) -> str:
    answer = await site.post(f"{ACCOUNTS}/{name}/token", {"spec": spec})
    assert answer.status == 201, answer.obj
    return str(answer.obj["status"]["token"])


async def review(site: Site, text: str, *audiences: str) -> dict[str, Any]:
    answer = await site.post(REVIEWS, {"spec": {"token": text, "audiences": list(audiences)}})
    assert answer.status == 201
    return answer.obj["status"]  # type: ignore[no-any-return]


async def shown(site: Site, text: str) -> Any:
    """What a request with the token meets: its status and answer."""
    target = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    headers = {"authorization": f"Bearer {text}", "content-type": "application/json"}
    status, _, body = await InProcessTransport(site.made.server, None).request("POST", target, headers, b"{}")
    return status, json.loads(body)


async def test_a_token_speaks_for_its_account(site: Site) -> None:
    uid = (await account(site))["metadata"]["uid"]
    before = site.clock.time()
    answer = await site.post(f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 1200}})
    assert (answer.obj["kind"], answer.obj["metadata"]["name"]) == ("TokenRequest", "robot")
    assert answer.obj["spec"] == {"audiences": [ISSUER], "expirationSeconds": 1200}
    ends = times.parse_time(answer.obj["status"]["expirationTimestamp"])
    assert before + 1199 <= ends <= before + 1205
    text = answer.obj["status"]["token"]
    claims = jwt.parse(text).claims
    assert claims["exp"] - claims["iat"] == 1200
    assert claims["nbf"] == claims["iat"]
    assert (claims["iss"], claims["aud"]) == (ISSUER, [ISSUER])
    assert claims["sub"] == "system:serviceaccount:default:robot"
    assert claims["kubernetes.io"] == {"namespace": "default", "serviceaccount": {"name": "robot", "uid": uid}}
    wanted = {
        "username": "system:serviceaccount:default:robot",
        "uid": uid,
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]},
    }
    assert await review(site, text) == {"authenticated": True, "user": wanted, "audiences": [ISSUER]}
    status, found = await shown(site, text)
    assert (status, found["status"]["userInfo"]) == (201, wanted)


async def test_limits_and_bad_requests(site: Site) -> None:
    await account(site)
    target = f"{ACCOUNTS}/robot/token"
    for spec, code, text in (
        ({"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": 1 << 33}, 422, "may not specify a duration larger than 2^32 seconds"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}, 404, 'pods "none" not found'),
        ({"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "none"}}, 404, 'nodes "none" not found'),
        ({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}}, 400, "cannot bind token"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "apps/v1", "name": "x"}}, 400, "cannot bind token"),
        ({"expirationSeconds": "x"}, 400, "expirationSeconds"),
        ({"audiences": "x"}, 400, "audiences"),
    ):
        answer = await site.post(target, {"spec": spec})
        assert (answer.status, text in answer.obj["message"]) == (code, True), answer.obj
    assert (await site.post(f"{ACCOUNTS}/other/token", {})).status == 404
    assert (await site.post(target, {"metadata": {"name": "x"}})).status == 400
    assert (await site.get(target)).status == 405
    empty = await site.post(target, {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"})
    assert (empty.status, empty.obj["spec"]["expirationSeconds"]) == (201, 3600)
    dry = await site.post(f"{target}?dryRun=All", {})
    assert (dry.status, dry.obj["status"]["token"]) == (201, "")


async def test_time_and_audiences(site: Site) -> None:
    await account(site)
    text = await token(site, audiences=["vault", "db"])
    assert (await review(site, text, "db", "else"))["audiences"] == ["db"]
    refused = await review(site, text)
    assert refused["user"] == {}
    assert "is invalid for the target audiences" in refused["error"]
    assert (await shown(site, text))[0] == 401
    mine = await token(site, expirationSeconds=600)
    assert (await shown(site, mine))[0] == 201
    site.clock.ahead_s = 599
    assert (await shown(site, mine))[0] == 201
    site.clock.ahead_s = 601
    assert (await shown(site, mine))[0] == 401
    assert (await review(site, mine))["error"] == "[invalid bearer token, service account token has expired]"
    site.clock.ahead_s = -3600
    assert "not valid yet" in (await review(site, mine))["error"]


async def test_pods_get_a_year_for_3607_seconds(site: Site) -> None:
    await account(site)
    answer = await site.post(f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 3607}})
    claims = jwt.parse(answer.obj["status"]["token"]).claims
    assert claims["exp"] - claims["iat"] == 365 * 86400
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607
    assert times.parse_time(answer.obj["status"]["expirationTimestamp"]) <= site.clock.time() + 3607
    other = jwt.parse(await token(site, expirationSeconds=3607, audiences=["vault"])).claims
    assert other["exp"] - other["iat"] == 3607


async def test_forged_tokens_are_refused(site: Site) -> None:
    await account(site)
    good = await token(site)
    header, claims, signature = good.split(".")

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value)).rstrip(b"=").decode()

    parsed = jwt.parse(good)
    none = part({**parsed.header, "alg": "none"})
    symmetric = part({**parsed.header, "alg": "HS256"})
    longer = part({**parsed.claims, "exp": parsed.claims["exp"] + 10})
    other = "B" if signature[10] != "B" else "C"
    forged = {
        f"{header}.{longer}.{signature}": "signature",
        f"{none}.{claims}.": "signature",
        f"{symmetric}.{claims}.{signature}": "signature",
        f"{part({**parsed.header, 'kid': 'x'})}.{claims}.{signature}": "signature",
        f"{header}.{claims}.{signature[:10]}{other}{signature[11:]}": "signature",
        f"{header}.{part({**parsed.claims, 'iss': 'https://elsewhere'})}.{signature}": "invalid bearer token",
        f"{header}.{claims}": "invalid bearer token",
        "x" * 40000: "invalid bearer token",
    }
    for text, why in forged.items():
        assert (await shown(site, text))[0] == 401, text
        assert why in (await review(site, text))["error"]
    assert (await shown(site, good))[0] == 201


async def test_a_deleted_account_or_pod_revokes(site: Site) -> None:
    await account(site)
    made = (await site.post(PODS, pod("a", serviceAccountName="robot"))).obj
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": made["metadata"]["uid"]}
    of_pod = await token(site, boundObjectRef=bound)
    status = await review(site, of_pod)
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["a"]
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [made["metadata"]["uid"]]
    wrong = await site.post(f"{ACCOUNTS}/robot/token", {"spec": {"boundObjectRef": {**bound, "uid": "x"}}})
    assert (wrong.status, "does not match the UID in record" in wrong.obj["message"]) == (409, True)
    await account(site, "other")
    wrong = await site.post(f"{ACCOUNTS}/other/token", {"spec": {"boundObjectRef": bound}})
    assert (wrong.status, "different serviceaccount name" in wrong.obj["message"]) == (400, True)
    await site.delete(f"{PODS}/a", {"gracePeriodSeconds": 0})
    assert (await shown(site, of_pod))[0] == 401
    again = (await site.post(PODS, pod("a", serviceAccountName="robot"))).obj
    assert again["metadata"]["uid"] != made["metadata"]["uid"]
    assert (await shown(site, of_pod))[0] == 401
    plain = await token(site)
    assert (await shown(site, plain))[0] == 201
    await site.delete(f"{ACCOUNTS}/robot")
    assert (await shown(site, plain))[0] == 401
    await account(site)
    assert (await shown(site, plain))[0] == 401


async def test_a_pod_that_ends_keeps_its_token_for_its_grace(site: Site) -> None:
    await account(site)
    made = (await site.post(PODS, pod("a", serviceAccountName="robot", nodeName="n1"))).obj
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": made["metadata"]["uid"]}
    text = await token(site, boundObjectRef=bound)
    await site.delete(f"{PODS}/a", {"gracePeriodSeconds": 30})
    assert (await shown(site, text))[0] == 201
    site.clock.ahead_s = 80
    assert (await shown(site, text))[0] == 201
    site.clock.ahead_s = 95
    assert (await shown(site, text))[0] == 401


async def test_bound_to_secret_or_node(site: Site) -> None:
    await account(site)
    await site.post(SECRETS, {"metadata": {"name": "s"}})
    await site.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    for kind, target in (("Secret", f"{SECRETS}/s"), ("Node", "/api/v1/nodes/n1")):
        text = await token(site, boundObjectRef={"kind": kind, "apiVersion": "v1", "name": target.rpartition("/")[2]})
        assert (await shown(site, text))[0] == 201
        await site.delete(target)
        assert (await shown(site, text))[0] == 401
    extra = (await review(site, text))["error"]
    assert "gone" in extra


async def test_nodes_get_tokens_of_their_pods_alone(site: Site) -> None:
    await account(site)
    node = site.as_user("system:node:n1", "system:nodes")
    mine = (await site.post(PODS, pod("a", serviceAccountName="robot", nodeName="n1"))).obj
    other = (await site.post(PODS, pod("b", serviceAccountName="robot", nodeName="n2"))).obj
    target = f"{ACCOUNTS}/robot/token"

    def bound(made: dict[str, Any], **more: Any) -> dict[str, Any]:
        reference = {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": made["metadata"]["name"],
            "uid": made["metadata"]["uid"],
        }
        return {"spec": {"boundObjectRef": reference | more}}

    assert (await node.post(target, bound(mine))).status == 201
    for request, why in (
        ({}, "not bound to a pod"),
        (bound(mine, uid=""), "without a uid"),
        (bound(mine, uid="x"), "does not match the UID in record"),
        (bound(other), "scheduled on a different node"),
        ({"spec": {**bound(mine)["spec"], "audiences": ["vault"]}}, 'audience "vault" not found in pod spec volume'),
        ({"spec": {"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "n1"}}}, "not bound to a pod"),
    ):
        answer = await node.post(target, request)
        assert (answer.status, why in answer.obj["message"]) == (403, True), answer.obj
    await account(site, "lonely")
    assert (await node.post(f"{ACCOUNTS}/lonely/token", bound(mine))).status == 403


async def test_others_verify_with_the_public_keys(site: Site) -> None:
    await account(site)
    text = await token(site)
    configuration = (await site.get("/.well-known/openid-configuration")).obj
    assert configuration["issuer"] == ISSUER
    assert configuration["jwks_uri"].endswith("/openid/v1/jwks")
    answer = await site.get("/openid/v1/jwks")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    parsed = jwt.parse(text)
    (key,) = [one for one in answer.obj["keys"] if one["kid"] == parsed.header["kid"]]

    def number(name: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(key[name] + "=" * (-len(key[name]) % 4)), "big")

    assert PublicKey(number("n"), number("e")).verifies(parsed.signed, parsed.signature)


async def test_static_tokens_go_on(tmp_path: Path) -> None:
    async with site_at(tmp_path, tokens={"secret": User("bob", ("dev", "system:authenticated"), "7")}) as site:
        assert (await review(site, "secret"))["user"]["username"] == "bob"
        assert (await shown(site, "secret"))[0] == 201
        assert (await shown(site, "secre"))[0] == 401


async def test_keys_change_and_survive_a_restart(tmp_path: Path) -> None:
    pki = SimPki(random.Random(1), RealClock())
    folder, data = tmp_path / "pki", tmp_path / "data"
    data.mkdir()

    async def keys() -> AccountKeys:
        return await load_or_make(folder, [], pki)

    first = await keys()
    assert (folder / "sa.key").stat().st_mode & 0o777 == 0o600
    async with site_at(data, keys=first) as site:
        await account(site)
        text = await token(site)
    async with site_at(data, keys=await keys()) as site:
        assert (await shown(site, text))[0] == 201
    (folder / "sa.key").rename(folder / "sa-old.key")
    from edgesite.net.pki import RealPki

    second = await load_or_make(folder, [], RealPki(SteppedClock()))
    assert len(second.verifying) == 2
    async with site_at(data, keys=second) as site:
        assert (await shown(site, text))[0] == 201
        assert jwt.parse(await token(site)).header["kid"] != jwt.parse(text).header["kid"]
    (folder / "sa-old.key").unlink()
    async with site_at(data, keys=await keys()) as site:
        assert (await shown(site, text))[0] == 401
    (folder / "sa.key").write_bytes(b"torn")
    made_anew = await keys()
    assert (folder / "sa.key.damaged").read_bytes() == b"torn"
    assert made_anew.signing is not None
    (folder / "sa-bad.pub").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"sa-bad\.pub"):
        await keys()


async def test_settings(tmp_path: Path) -> None:
    settings = TokenSettings(issuers=("https://new", ISSUER), audiences=("api",), most_s=900, extend=False)
    async with site_at(tmp_path) as site:
        await account(site)
        old = await token(site, audiences=["api"])
    async with site_at(tmp_path, token_settings=settings) as site:
        assert (await shown(site, old))[0] == 201
        answer = await site.post(f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 3607}})
        assert "shortened to 900 seconds" in answer.headers["warning"]
        claims = jwt.parse(answer.obj["status"]["token"]).claims
        assert (claims["exp"] - claims["iat"], claims["iss"], claims["aud"]) == (900, "https://new", ["api"])
