"""keadm with the frozen program under a real systemd: one host becomes cloud and edge, survives a stop, and is reset."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from e2e_bundle import frozen_bundle
from e2e_machine import Machine

KEADM = "/usr/lib/kubeedge/keadm"
pytestmark = pytest.mark.timeout(400)


def test_one_binary_makes_a_host_cloud_and_edge(tmp_path: Path) -> None:
    with closing(Machine(tmp_path / "machine", {frozen_bundle(): "/usr/lib/kubeedge"})) as machine:
        machine.boot()
        said = machine(KEADM, "init", "--advertise-address=127.0.0.1", timeout_s=150)
        assert "CLOUDCORE started" in said, machine.journal("cloudcore")
        token = machine(KEADM, "gettoken")
        said = machine(KEADM, "join", "--cloudcore-ipport=127.0.0.1:10000", f"--token={token}", timeout_s=200)
        assert "node edge1 is Ready" in said
        for unit in ("cloudcore", "edgecore"):
            assert machine("systemctl", "is-active", unit) == "active\n"
            assert machine("systemctl", "is-enabled", unit) == "enabled\n"
            assert f"/usr/lib/kubeedge/{unit}" in machine.property(unit, "ExecStart")
        assert machine.property("edgecore", "KillMode") == "process"
        failed = machine.run(KEADM, "join", "--cloudcore-ipport=127.0.0.1:10000", f"--token={token}")
        assert (failed.returncode, "EdgeCore is already running" in failed.stderr) == (1, True)

        assert "edgecore is stopped" in machine(KEADM, "reset", "edge", "--force")
        assert machine("systemctl", "is-active", "cloudcore") == "active\n"  # the other side of this host goes on
        assert machine(KEADM, "gettoken") == token
        machine(KEADM, "reset", "--force")
        left = "ls -d /etc/systemd/system/*core.service /usr/local/bin/*core /var/lib/kubeedge/* /var/lib/keadm /etc/kubeedge/c*/*"
        assert machine.run("sh", "-c", left).stdout == ""
        assert machine.run("systemctl", "status", "edgecore").returncode == 4  # no such unit
