"""Which kinds of devices the cloud role settles on, whatever the API answers meanwhile."""

from __future__ import annotations

import logging
import random
from typing import Any

import anyio
import pytest

from edgesite.cloud.devicecontroller.served import kinds, until_newer
from edgesite.kube.errors import ApiError, unavailable
from edgesite.kube.resources import Resource

LOG = logging.getLogger("test")
MISSING = ApiError(404, "NotFound", "the server could not find the requested resource")
FORBIDDEN = ApiError(403, "Forbidden", "no right")
CONVERSION = ApiError(500, "InternalError", "conversion webhook for devices.kubeedge.io/v1alpha2, Kind=Device failed")


class Api:
    """Answers the next of its answers by version; the last one goes on."""

    def __init__(self, **answers: list[ApiError | None]) -> None:
        self._answers = answers
        self.slept: list[float] = []

    async def list(self, kind: Resource, *, limit: int) -> dict[str, Any]:
        answers = self._answers[kind.version]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is not None:
            raise answer
        return {"items": []}

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def settled(api: Api) -> str:
    async def ask() -> str:
        with anyio.fail_after(10):
            found = await kinds(api, api, random.Random(1), LOG)  # type: ignore[arg-type]
        assert found[0].version == found[1].version
        return found[0].version

    return anyio.run(ask)


@pytest.mark.parametrize("for_now", [CONVERSION, unavailable("no answer"), FORBIDDEN])
def test_what_fails_for_now_is_not_taken_for_missing(for_now: ApiError) -> None:
    """While webhooks are not up yet, v1alpha2 may answer and v1beta1 not."""
    api = Api(v1beta1=[for_now, for_now, None], v1alpha2=[None])
    assert settled(api) == "v1beta1"
    assert len(api.slept) == 2
    assert sum(api.slept) < 5


def test_older_definitions_are_worked_with_until_newer_ones_come() -> None:
    assert settled(Api(v1beta1=[MISSING], v1alpha2=[None])) == "v1alpha2"
    api = Api(v1beta1=[MISSING, CONVERSION, None])
    anyio.run(until_newer, api, api, random.Random(1), LOG)
    assert len(api.slept) == 2


def test_a_missing_right_and_missing_kinds_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert settled(Api(v1beta1=[FORBIDDEN, FORBIDDEN, MISSING, MISSING, None], v1alpha2=[MISSING])) == "v1beta1"
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one for one in said if "no right" in one] == said[:1]
    assert len(said) == 2
