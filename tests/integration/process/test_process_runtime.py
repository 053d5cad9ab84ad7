"""The process runtime keeps the contract of runtimes, with real processes: as root, and without any privilege."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from process_site import OpenProcess

from edgesite.testing.runtime import OpenRuntime, RuntimeContract

pytestmark = pytest.mark.anyio

#: Without root, but able to read the interpreter wherever it is installed.
UNPRIVILEGED = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)


class TestProcess(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, open_process: OpenProcess) -> OpenRuntime:
        return open_process


def test_all_of_it_works_without_root() -> None:
    if os.getuid() != 0:
        return  # then everything else here has just shown it
    here = Path(__file__).parent
    # Not below pytest's own folder, which is root's alone.
    with tempfile.TemporaryDirectory(prefix="edgesite-unprivileged-") as place:
        os.chown(place, 65534, 65534)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={place}/t", str(here)]
        command.append(f"--ignore={here}/test_process_crash.py")  # it looks at what root could leave behind
        done = subprocess.run(
            [*UNPRIVILEGED, *command],
            cwd=here.parents[2],
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "HOME": place},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
