"""The tests that docs/interop.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_decision_has_its_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/interop.md").read_text()))
    assert len(named) > 25
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {one for one in named if f"def {one}(" not in sources} == set()
