"""Manifests of devices as KubeEdge publishes them, applied by real kubectls as they are and read in both versions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
import yaml
from apiserver_role import role_at
from device_manifests import MANIFESTS, OLDER, RULES
from test_apiserver_kubectl import Kubectl

pytestmark = pytest.mark.anyio
PLURALS = {"Device": "devices", "DeviceModel": "devicemodels"}
VERSIONS = ("v1alpha2", "v1beta1")


@pytest.fixture(params=["1.20", "1.32"])
async def kubectl(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with role_at(tmp_path) as running:
        yield Kubectl(peers.kubectl(request.param), running.kubeconfig, tmp_path)


def lost(given: Any, found: Any, path: str = "") -> Iterator[str]:
    """What is in ``given`` and not in ``found``."""
    if isinstance(given, dict):
        for name, one in given.items():
            if one is not None:
                yield from lost(one, (found or {}).get(name), f"{path}.{name}")
    elif isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        for at, one in enumerate(given):
            yield from lost(one, found[at], f"{path}[{at}]")
    elif given != found:
        yield f"{path}: {given!r} became {found!r}"


async def test_they_are_taken_unchanged_and_read_in_both_versions(kubectl: Kubectl) -> None:
    for text in MANIFESTS.values():
        assert (await kubectl("apply -f -", given=text)).count("created") == 2
        assert (await kubectl("apply -f -", given=text)).count("unchanged") == 2
        for obj in yaml.safe_load_all(text):
            wanted = {name: obj.get(name) for name in ("spec", "status")}
            name, own = obj["metadata"]["name"], obj["apiVersion"].partition("/")[2]
            places = {one: f"{PLURALS[obj['kind']]}.{one}.devices.kubeedge.io {name}" for one in VERSIONS}
            (other,) = (one for one in VERSIONS if one != own)
            assert not list(lost(wanted, json.loads(await kubectl(f"get {places[own]} -o json"))))
            await kubectl("replace -f -", given=await kubectl(f"get {places[other]} -o json"))
            assert not list(lost(wanted, json.loads(await kubectl(f"get {places[own]} -o json"))))


async def test_what_has_no_effect_is_said_and_what_is_bad_refused(kubectl: Kubectl) -> None:
    said = await kubectl("apply -f -", given=MANIFESTS["bluetooth"])
    assert "Warning: spec.propertyVisitors: they are v1alpha1's and have no effect" in said
    assert "property 'lamp' is int in its model" in said
    mistaken = MANIFESTS["bluetooth"].replace("{type: string}", "{type: integer}")
    assert "status.twins[2].desired.value" in await kubectl("apply -f -", given=mistaken, code=1)
    bad = MANIFESTS["bluetooth"].replace("[2, 255]", "[2, 256]")
    assert "spec.propertyVisitors[0].bluetooth.dataWrite.FAST" in await kubectl("apply -f -", given=bad, code=1)
    worse = MANIFESTS["customized"].replace("value: '0'", "value: '2'")
    assert "status.twins[0].desired.value" in await kubectl("apply -f -", given=worse, code=1)


async def test_the_oldest_version_is_refused(kubectl: Kubectl) -> None:
    assert 'no matches for kind "Device" in version "devices.kubeedge.io/v1alpha1"' in await kubectl(
        "apply -f -", given=OLDER, code=1
    )


async def test_rules_are_kept_and_checked(kubectl: Kubectl) -> None:
    said = await kubectl("apply -f -", given=RULES)
    assert said.count("created") == 3
    assert said.count("edgesite brings no router") == 1
    again = await kubectl("apply -f -", given=RULES)
    assert again.count("unchanged") == 3
    assert "router" not in again
    assert "own-bus" in await kubectl("get re")
    bad = RULES.replace('  target: "own-rest"\n', "").replace("bus-to-rest", "bus-to-nowhere")
    refused = await kubectl("apply -f -", given=bad, code=1)
    assert "target" in refused
