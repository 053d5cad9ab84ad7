"""What is locked is complete for each architecture, and sources come only as they were locked."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging" / "freeze"))
import sdists
import wheels
from command import BuildFailed
from layout import ARCHITECTURES, HERE, Architecture, named

PAGE = """<!DOCTYPE html><html><body>
<a href="../../packages/ab/a_b-1.0.tar.gz#sha256=0123">a_b-1.0.tar.gz</a><br>
<a href="https://elsewhere/a_b-1.0.1.tar.gz#sha256=0123">a_b-1.0.1.tar.gz</a>
<a href="https://elsewhere/a_b-1.0-py3-none-any.whl#sha256=0123" data-requires-python="&gt;=3.8">a_b-1.0-py3-none-any.whl</a>
</body></html>"""


INDEX = "https://index/simple/a-b/"


def test_sources_are_found_by_any_spelling_of_the_name() -> None:
    assert sdists.linked(INDEX, PAGE, "a-b", "1.0") == ("https://index/packages/ab/a_b-1.0.tar.gz", "0123")
    with pytest.raises(BuildFailed, match="no sources of a-b 2"):
        sdists.linked(INDEX, PAGE, "a-b", "2")


def test_other_sources_than_the_locked_ones_are_refused(tmp_path: Path) -> None:
    (served := tmp_path / "a_b-1.0.tar.gz").write_bytes(b"sources")
    (folder := tmp_path / "fetched").mkdir()
    with pytest.raises(BuildFailed, match="not what the lock file says"):
        sdists.fetch(served.as_uri(), ["0" * 64], folder)
    assert list(folder.iterdir()) == []
    digest = hashlib.sha256(b"sources").hexdigest()
    assert sdists.fetch(served.as_uri(), ["0" * 64, digest], folder).read_bytes() == b"sources"


@pytest.mark.parametrize("target", ARCHITECTURES.values(), ids=lambda one: one.name)
@pytest.mark.parametrize("name", [*wheels.LISTS, wheels.COMPILERS])
def test_every_locked_distribution_is_a_wheel_or_compiled(name: str, target: Architecture) -> None:
    lines = wheels.requirements(name, target)
    listed = set(re.findall(r"^(\S+)==", lines, re.MULTILINE))
    missing = wheels.distributions(name).keys() - listed
    assert missing <= {"aioquic", "cffi", "httptools", "msgspec", "pyinstaller", "pylsqpack", "pyyaml", "uvloop"}
    assert target.name == "armv7l" or not missing
    assert lines.count("==") == len(listed)  # a row that the pattern does not match would be lost


@pytest.mark.parametrize("name", [*wheels.LISTS, wheels.COMPILERS])
def test_what_is_named_is_locked(name: str) -> None:
    wanted = re.findall(r"^([a-z0-9-]+)", (HERE / f"{name}.in").read_text(), re.MULTILINE)
    assert set(wanted) <= wheels.distributions(name).keys()


def test_machines_are_known_by_the_names_that_others_have_for_them() -> None:
    assert {named(one).name for one in ("arm64", "aarch64")} == {"aarch64"}
    assert {named(one).name for one in ("armhf", "armv7", "armv7l")} == {"armv7l"}
    with pytest.raises(KeyError):
        named("s390x")
