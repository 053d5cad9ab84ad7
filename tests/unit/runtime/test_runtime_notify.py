"""What systemd is told, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgesite.runtime.health import RoleHealth
from edgesite.runtime.notify import Systemd, status, why_unwell
from edgesite.runtime.supervisor import ModuleState, Running


def role(node: str = "n1", **states: ModuleState) -> Any:
    running = []
    for name, state in states.items():
        one = Running(SimpleNamespace(name=name), lambda ready: None)  # type: ignore[arg-type]
        one.state = state
        running.append(one)
    return SimpleNamespace(node_name=node, running=running, health=RoleHealth())


def test_the_variables_are_taken_from_the_environment_so_that_children_do_not_speak_for_us() -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "60000000", "PATH": "/bin"}
    assert Systemd.take(environment) == Systemd("@x", 60.0)
    assert environment == {"PATH": "/bin"}


def test_a_watchdog_for_another_process_is_not_ours() -> None:
    assert Systemd.take({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_s == 0


def test_what_is_no_socket_of_this_machine_is_left_alone() -> None:
    assert Systemd.take({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000"}) == Systemd()


@pytest.mark.anyio
async def test_the_status_names_who_is_missing() -> None:
    ready, crashed = ModuleState.READY, ModuleState.CRASHED
    assert status([role(edged=ready, edgehub=ready)]) == "edge role of node n1: 2 modules ready"
    assert status([role(edged=ready, edgehub=crashed)]) == (
        "edge role of node n1: 1 of 2 modules ready; not edgehub (crashed)"
    )


@pytest.mark.anyio
async def test_a_module_that_crashes_is_its_supervisors_business_not_systemds() -> None:
    assert why_unwell([role(edgehub=ModuleState.CRASHED)]) is None


@pytest.mark.anyio
async def test_a_module_without_supervisor_and_a_failed_liveness_check_are_systemds_business() -> None:
    assert why_unwell([role(edgehub=ModuleState.STOPPED)]) == "edgehub was left by its supervisor"
    sick = role(edgehub=ModuleState.READY)
    sick.health.add_check("store", lambda: "its thread has ended", live=True)
    assert why_unwell([sick]) == "store: its thread has ended"
