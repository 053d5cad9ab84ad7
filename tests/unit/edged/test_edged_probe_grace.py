"""The grace period that a probe has of its own."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from edged_machine import IMAGE, Machine, container, pod

from edgesite.edge.edged.runtime import ExecResult
from edgesite.testing.fakeruntime import Script

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("own", "most_s"), [(1, 4.0), (None, 8.0)])
async def test_a_probe_may_shorten_the_grace_period(tmp_path: Path, own: int | None, most_s: float) -> None:
    machine = Machine()
    machine.scripts["main"] = Script(stop_s=math.inf, exec=lambda command: (0.0, ExecResult(b"", b"ill", 1)))
    probe = {"exec": {"command": ["look"]}, "failureThreshold": 1, "periodSeconds": 1}
    if own is not None:
        probe["terminationGracePeriodSeconds"] = own
    main = {"name": "main", "image": IMAGE, "livenessProbe": probe}
    async with machine.rig(tmp_path) as rig:
        began = time.monotonic()
        await rig.cloud.apply("pod", pod(containers=[main], terminationGracePeriodSeconds=5))
        await rig.cloud.until(lambda: container(rig.cloud).get("restartCount") == 1)
        took = time.monotonic() - began
        assert (took < 4.0) is (own == 1)
        assert took < most_s
