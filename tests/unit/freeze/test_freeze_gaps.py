"""A module of ours that PyInstaller leaves out fails the build."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging" / "freeze"))
import bundle

WARNINGS = """
This file lists modules PyInstaller was not able to find.

missing module named winreg - imported by mimetypes (optional), edgesite.cli.main (delayed)
missing module named 'edgesite.testing.pluginkit' - imported by edgesite.cli.plugins.conformance (delayed, optional)
invalid module named edgesite.edge.hub - imported by entry.py (top-level)
missing module named 'edgesite.edge.gone' - imported by edgesite.edge.plugin (delayed)
missing module named edgesite_vendor - imported by foo
"""


def test_what_is_ours_and_cannot_be_compiled_or_found_is_named() -> None:
    assert [one.split(" - ")[0] for one in bundle.gaps(WARNINGS)] == [
        "invalid module named edgesite.edge.hub",
        "missing module named 'edgesite.edge.gone'",
    ]
