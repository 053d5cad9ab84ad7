"""Devices with real kubectl, the oldest and a current one: manifests of both versions, columns, patches, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import peers
import pytest
from apiserver_role import role_at
from test_apiserver_kubectl import Kubectl

pytestmark = pytest.mark.anyio
MODEL = """
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {name: valve, namespace: default}
spec:
  properties:
  - name: opening
    description: how far it is open
    type: {int: {accessMode: ReadWrite, defaultValue: 0, maximum: 100, unit: percent}}
"""
DEVICE = """
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {name: valve-1, labels: {description: inlet}}
spec:
  deviceModelRef: {name: valve}
  protocol: {modbus: {slaveID: 1}, common: {tcp: {ip: 192.168.1.7, port: 502}}}
  nodeSelector:
    nodeSelectorTerms:
    - matchExpressions: [{key: '', operator: In, values: [edge-1 ]}]
  propertyVisitors:
  - {propertyName: opening, collectCycle: 5000, modbus: {register: HoldingRegister, offset: 0, limit: 1, scale: 1.0}}
status:
  twins:
  - propertyName: opening
    desired: {metadata: {timestamp: '1550049403598', type: integer}, value: "40"}
    reported: {metadata: {timestamp: '1550049403598', type: integer}, value: "0"}
"""
TURN = '[{"op":"replace","path":"/spec/properties/0/desired/value","value":"%s"}]'


@pytest.fixture(params=["1.20", "1.32"])
async def kubectl(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with role_at(tmp_path) as running:
        yield Kubectl(peers.kubectl(request.param), running.kubeconfig, tmp_path)


async def test_a_device_is_applied_shown_turned_and_refused(kubectl: Kubectl) -> None:
    said = await kubectl("apply -f -", given=f"{MODEL}---{DEVICE}")
    assert "device.devices.kubeedge.io/valve-1 created" in said
    assert "unchanged" in await kubectl("apply -f -", given=DEVICE)
    head, row = (await kubectl("get devices")).splitlines()
    assert head.split() == ["NAME", "MODEL", "NODE", "STATE", "DESIRED", "REPORTED", "AGE"]
    assert row.split()[:6] == ["valve-1", "valve", "edge-1", "<none>", "opening=40", "opening=0"]
    await kubectl("patch device valve-1 --type=json -p", TURN % "55")
    assert "opening=55" in await kubectl("get device valve-1")
    old = await kubectl("get devices.v1alpha2.devices.kubeedge.io valve-1 -o jsonpath={.status.twins[0].desired.value}")
    assert old == "55"
    refused = await kubectl("patch device valve-1 --type=json -p", TURN % "101", code=1)
    assert "spec.properties[0].desired.value" in refused
    assert "at most 100" in refused
    bad = DEVICE.replace("propertyName: opening,", "propertyName: closing,").replace("valve-1", "valve-2")
    refused = await kubectl("apply -f -", given=bad, code=1)
    assert 'spec.propertyVisitors[0].propertyName: Not found: "closing"' in refused
    assert "deleted" in await kubectl("delete device valve-1")
