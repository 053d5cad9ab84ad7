"""The two roles as two processes on free ports of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks import rig

__all__ = ["Apart"]


class Apart:
    """A cloud role and an edge role below one folder; each may be started again on what it left."""

    def __init__(
        self, folder: Path, runtime: tuple[str, ...] = ("--runtime", "process"), program: Path = rig.PROGRAM
    ) -> None:
        """``runtime`` are the options that say what the edge runs its pods on."""
        self._program = program
        self._runtime = runtime
        self._cloud, self._edge = folder / "cloud-role", folder / "edge-role"
        self._ports = [rig.free_port() for _ in range(3)]

    def api(self) -> rig.Api:
        return rig.Api(self._cloud / "admin.kubeconfig")

    def cloud_arguments(self) -> tuple[str, ...]:
        where = ("--data-dir", str(self._cloud), "--api-address", f"127.0.0.1:{rig.free_port()}")
        return ("cloud", *where, "--advertise-address", "127.0.0.1", *self._port_options())

    def edge_arguments(self, token: str = "") -> tuple[str, ...]:
        where = ("--data-dir", str(self._edge), "--cloud", "127.0.0.1", "--node-name", "node1")
        return (
            "edge",
            *where,
            *self._runtime,
            *self._port_options(),
            *rig.EDGE_PORTS,
            *(("--token", token) if token else ()),
        )

    def token(self) -> str:
        """What the running cloud role lets edges join with."""
        asked = [str(self._program), "token", "--data-dir", str(self._cloud)]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()

    def cloud(self, env: dict[str, str] | None = None) -> rig.Program:
        return rig.Program(*self.cloud_arguments(), env=env, program=self._program)

    def edge(self, token: str, env: dict[str, str] | None = None) -> rig.Program:
        return rig.Program(*self.edge_arguments(token), env=env, program=self._program)

    def _port_options(self) -> tuple[str, ...]:
        names = ("--hub-port", "--bootstrap-port", "--tunnel-port")
        return tuple(part for name, port in zip(names, self._ports, strict=True) for part in (name, str(port)))
