"""Tokens in Secrets, and roles that are joined from others."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from controlplane_site import Site

from edgesite.client import ObjectKey
from edgesite.kube import jwt
from edgesite.kube.resources import BUILTIN, CLUSTER_ROLES, SECRETS, SERVICE_ACCOUNTS

pytestmark = pytest.mark.anyio
REVIEWS = next(one for one in BUILTIN if one.plural == "tokenreviews")


def secret(name: str, account: str, **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"kubernetes.io/service-account.name": account, **annotations},
        },
        "type": "kubernetes.io/service-account-token",
    }


async def test_a_token_secret_is_filled_and_goes_with_its_account(site: Site) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "default"}}
    made = await site.client.create(SERVICE_ACCOUNTS, account)
    await site.client.create(SECRETS, secret("s", "robot"))
    key = ObjectKey("default", "s")
    filled = await site.until(SECRETS, lambda cache: (cache.by_key(key) or {}).get("data") and cache.by_key(key))
    data = {name: base64.b64decode(value).decode() for name, value in filled["data"].items()}
    assert (data["ca.crt"], data["namespace"]) == ("a certificate\n", "default")
    assert filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == made["metadata"]["uid"]
    assert "exp" not in jwt.parse(data["token"]).claims

    async def review() -> dict[str, Any]:
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": data["token"]}}
        return (await site.client.create(REVIEWS, asked))["status"]  # type: ignore[no-any-return]

    status = await review()
    assert status["user"]["username"] == "system:serviceaccount:default:robot"
    await site.client.patch(SECRETS, "s", {"data": {"token": base64.b64encode(b"other").decode()}}, "default")
    assert not (await review()).get("authenticated")
    await site.client.delete(SERVICE_ACCOUNTS, "robot", "default")
    await site.until(SECRETS, lambda cache: cache.by_key(key) is None)


async def test_a_token_secret_of_nobody_is_removed(site: Site) -> None:
    await site.client.create(SECRETS, secret("lost", "nobody"))
    key = ObjectKey("default", "lost")
    await site.until(SECRETS, lambda cache: cache.by_key(key) is None)
    uid = {"kubernetes.io/service-account.uid": "of-another"}
    await site.until(SERVICE_ACCOUNTS, lambda cache: cache.by_key(ObjectKey("default", "default")))
    await site.client.create(SECRETS, secret("old", "default", **uid))
    await site.until(SECRETS, lambda cache: cache.by_key(ObjectKey("default", "old")) is None)


async def test_roles_are_joined_and_follow(site: Site) -> None:
    def rules(name: str) -> Any:
        return lambda cache: (cache.by_key(ObjectKey("", name)) or {}).get("rules")

    def has_all_of_view(cache: Any) -> bool:
        view = rules("view")(cache)
        return bool(view) and all(rule in (rules("admin")(cache) or []) for rule in view)

    await site.until(CLUSTER_ROLES, has_all_of_view)
    mine = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "mine", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["example.org"], "resources": ["things"]}],
    }
    await site.client.create(CLUSTER_ROLES, mine)
    for name in ("view", "edit", "admin"):
        await site.until(CLUSTER_ROLES, lambda cache, name=name: mine["rules"][0] in rules(name)(cache))
    await site.client.delete(CLUSTER_ROLES, "mine")
    for name in ("view", "edit", "admin"):
        await site.until(CLUSTER_ROLES, lambda cache, name=name: mine["rules"][0] not in rules(name)(cache))
