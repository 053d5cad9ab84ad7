"""Fixtures of the link's tests; what they are made of is in `link_site`."""

from __future__ import annotations

from pathlib import Path

import pytest
from link_site import SiteMaker, site_at


@pytest.fixture
def make_site(tmp_path: Path) -> SiteMaker:
    return lambda *, single_process=True: site_at(tmp_path, single_process=single_process)
