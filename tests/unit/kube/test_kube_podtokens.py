"""For whom a node may ask for tokens of a pod."""

from __future__ import annotations

from typing import Any

import pytest

from edgesite.kube.podtokens import strange_audience


def token(**more: Any) -> dict[str, Any]:
    return {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", **more}}, {"secret": {}}]}}


@pytest.mark.parametrize(
    ("volumes", "asked", "strange"),
    [
        ([token()], None, None),
        ([token()], [], None),
        ([token()], ["vault"], "vault"),
        ([token(audience="vault")], ["vault"], None),
        ([token(audience="vault")], None, ""),
        ([token(), token(audience="vault")], ["vault", "db"], "db"),
        ([], None, ""),
        (None, ["x"], "x"),
        ([{"name": "d", "csi": {"driver": "x"}}], ["x"], None),
        ([{"name": "d", "persistentVolumeClaim": {}}], ["x"], None),
    ],
)
def test_audiences(volumes: Any, asked: list[str] | None, strange: str | None) -> None:
    assert strange_audience({"spec": {"volumes": volumes}}, asked) == strange
