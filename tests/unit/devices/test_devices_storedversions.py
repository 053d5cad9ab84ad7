"""Devices that a cluster stores in an older version: rewritten, or said to be there still."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from edgesite.cloud.storedversions import rewrite
from edgesite.kube.errors import ApiError, internal
from edgesite.kube.resources import Resource

Object = dict[str, Any]


class Api:
    """A cluster with devices in pages; ``failures`` come before the answers to lists, ``refused`` when a device is written."""

    def __init__(self, stored: list[str], count: int = 0, *failures: ApiError) -> None:
        self.stored = {"devices": stored, "devicemodels": ["v1beta1"]}
        self.names = [f"d{n}" for n in range(count)]
        self.failures = list(failures)
        self.refused: dict[str, ApiError] = {}
        self.written: list[str] = []
        self.slept: list[float] = []

    async def get(self, kind: Resource, name: str) -> Object:
        return {"status": {"storedVersions": self.stored[name.partition(".")[0]]}}

    async def list(self, kind: Resource, *, limit: int, continue_token: str) -> Object:
        if self.failures:
            raise self.failures.pop(0)
        start = int(continue_token or 0)
        page = self.names[start : start + limit]
        token = str(start + limit) if start + limit < len(self.names) else ""
        return {"items": [{"metadata": {"name": name}} for name in page], "metadata": {"continue": token}}

    async def update(self, kind: Resource, obj: Object) -> None:
        assert (obj["apiVersion"], obj["kind"]) == ("devices.kubeedge.io/v1beta1", "Device")
        if error := self.refused.get(obj["metadata"]["name"]):
            raise error
        self.written.append(obj["metadata"]["name"])

    async def patch(self, kind: Resource, name: str, patch: Object, *, subresource: str) -> None:
        assert subresource == "status"
        self.stored[name.partition(".")[0]] = patch["status"]["storedVersions"]

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def run(api: Api) -> list[str]:
    said: list[str] = []
    anyio.run(rewrite, api, api, said.append)
    return said


def test_nothing_is_asked_where_nothing_is_older() -> None:
    api = Api(["v1beta1"], 3)
    assert run(api) == []
    assert api.written == []


def test_all_pages_are_rewritten_when_the_webhooks_have_come_up() -> None:
    api = Api(["v1alpha2", "v1beta1"], 450, internal("conversion webhook failed"))
    (said,) = run(api)
    assert "450 objects rewritten" in said
    assert api.written == api.names
    assert api.stored["devices"] == ["v1beta1"]
    assert len(api.slept) == 1


@pytest.mark.parametrize("code", [404, 409])
def test_what_is_gone_or_written_meanwhile_is_done(code: int) -> None:
    api = Api(["v1alpha2"], 3)
    api.refused["d1"] = ApiError(code, "Conflict", "too late")
    run(api)
    assert api.stored["devices"] == ["v1beta1"]


def test_without_webhooks_it_is_said_and_nothing_is_claimed() -> None:
    api = Api(["v1alpha2"], 3, *[internal("conversion webhook failed")] * 20)
    (said,) = run(api)
    assert "stored as v1alpha2 still" in said
    assert api.stored["devices"] == ["v1alpha2"]
    assert sum(api.slept) <= 60


def test_a_right_that_is_missing_is_an_error() -> None:
    api = Api(["v1alpha2"], 3)
    api.refused["d2"] = ApiError(403, "Forbidden", "no right")
    with pytest.raises(ApiError, match="no right"):
        run(api)
    assert api.stored["devices"] == ["v1alpha2"]
