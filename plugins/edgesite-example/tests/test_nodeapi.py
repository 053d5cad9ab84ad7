"""What the node's API gains by this plugin."""

from __future__ import annotations

import json

import pytest
from edgesite_example.nodeapi import NodeApi
from edgesite_example.tags import STRICT

from edgesite.kube.errors import ApiError
from edgesite.kube.requestinfo import RequestInfo, parse_path, request_info

API = NodeApi("Moin")
PATH = "/apis/example.edgesite.io/v1/greetings"


def asked(method: str, path: str) -> RequestInfo:
    return request_info(method, parse_path(path), watch=False)


@pytest.mark.anyio
async def test_it_answers_for_its_kind() -> None:
    listed = await API.serve(None, asked("GET", PATH), None)  # type: ignore[arg-type]
    assert json.loads(listed.body)["items"][0]["text"] == "Moin"
    with pytest.raises(ApiError, match='"none" not found'):
        await API.serve(None, asked("GET", f"{PATH}/none"), None)  # type: ignore[arg-type]


def test_it_keeps_programs_from_deleting_in_the_strict_namespace() -> None:
    API.admit(asked("DELETE", "/api/v1/namespaces/default/pods/a"), None)
    with pytest.raises(ApiError, match="only changed from the cloud"):
        API.admit(asked("DELETE", f"/api/v1/namespaces/{STRICT}/pods/a"), None)
