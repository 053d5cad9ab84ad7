"""The driver of cameras against Aravis' fake ones, each scene in a process and a network of its own (gige_scenes.py). Needs root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCENES = Path(__file__).with_name("gige_scenes.py")


@pytest.mark.parametrize("scene", ["features", "several", "uploads", "silence"])
def test_scene(scene: str) -> None:
    path = [str(SCENES.parent), str(SCENES.parent.parent)]
    code = f"import sys, runpy; sys.path[:0] = {path!r}; sys.argv = ['', {scene!r}]; runpy.run_path({str(SCENES)!r}, run_name='__main__')"
    command = ["unshare", "--net", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
