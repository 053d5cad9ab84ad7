"""Programs under test and kubectl, as a user runs them, for the suites here.

Units   Seconds.
Errors  Failed: something did not happen; the message says what, with the end of the program's log.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

__all__ = ["EDGESITE", "Failed", "Kubectl", "Program", "eventually", "free_ports"]

EDGESITE: Final = Path(sys.executable).parent / "edgesite"
_END_S: Final = 30.0


class Failed(Exception):
    """What was to be shown is not so."""


def eventually(probe: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Ask until the answer is true, and return it. Raises Failed."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            if last := probe():
                return last
        except Failed as exc:
            last = exc
        time.sleep(0.2)
    raise Failed(f"{what}: not within {timeout_s:.0f} s; last: {last}")


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Program:
    """One process; its standard output is kept in memory, its log in a file that further runs append to."""

    def __init__(self, log: Path, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        self.log = log
        self.lines: list[str] = []
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
                env={**os.environ, **(env or {})},
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def wait_line(self, text: str, timeout_s: float = 60.0) -> None:
        """Raises Failed."""

        def said() -> bool:
            if any(text in line for line in self.lines):
                return True
            if self.process.poll() is not None:
                raise Failed(f"ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            return False

        eventually(said, f"{text!r} of {self.log.name}", timeout_s)

    def stop(self, timeout_s: float = _END_S) -> None:
        """End it as systemd does. Raises Failed if it does not end well."""
        self.process.send_signal(signal.SIGTERM)
        if (code := self.process.wait(timeout_s)) != 0:
            raise Failed(f"ended with {code}: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a power cut does; idempotent."""
        self.process.kill()
        self.process.wait(_END_S)


class Kubectl:
    """kubectl against one API."""

    def __init__(self, program: str, kubeconfig: Path) -> None:
        self._command = [program, "--kubeconfig", str(kubeconfig)]

    def run(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def __call__(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """Run, and return standard output. Raises Failed."""
        done = self.run(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode:
            raise Failed(f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> str:
        """Apply objects. Raises Failed."""
        return self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
