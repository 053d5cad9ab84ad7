"""The frozen program for tests: made of the working tree by this Python, or the one of the folder that EDGESITE_FROZEN names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def frozen_bundle() -> Path:
    """Return the installed folder, ``lib/kubeedge``. Freezing takes a minute or two; what is unchanged is not frozen again."""
    made = Path(os.environ.get("EDGESITE_FROZEN") or PROJECT / "dist" / "here")
    if "EDGESITE_FROZEN" not in os.environ:
        command = [sys.executable, str(PROJECT / "packaging" / "freeze"), "build", "--here"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return made / "lib" / "kubeedge"
