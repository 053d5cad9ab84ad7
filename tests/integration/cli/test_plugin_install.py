"""Installing plugins: what is refused and why, and that a failure leaves what was there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wheelmaker import ABI, make_wheel

from edgesite.cli.plugins.fit import Misfit, importable
from edgesite.cli.plugins.folder import install, installed, remove
from edgesite.cli.plugins.wheelfile import BadWheel
from edgesite.runtime.plugins import abi_problem, plugin_places


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "plugins"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    (place := tmp_path / "wheels").mkdir()
    return place


def test_a_wheel_is_unpacked_and_found(folder: Path, wheels: Path) -> None:
    assert install(folder, [make_wheel(wheels)]) == ("acme", "1.0")
    assert (folder / "acme" / "acme" / "plugin.py").read_text() == "VALUE = 1\n"
    assert installed(folder) == {"acme": [("acme", "1.0")]}
    assert plugin_places(folder) == [folder / "acme"]
    assert (folder / "acme" / "acme" / "__pycache__").is_dir()  # compiled, because nobody may write there later
    record = (folder / "acme" / "acme-1.0.dist-info" / "RECORD").read_text()
    assert "acme/plugin.py,sha256=" in record


def test_other_users_may_read_it_whatever_the_umask(folder: Path, wheels: Path) -> None:
    before = os.umask(0o077)
    try:
        install(folder, [make_wheel(wheels)])
    finally:
        os.umask(before)
    for one in (folder, *(folder / "acme").resolve().rglob("*")):
        assert one.stat().st_mode & 0o777 == (0o755 if one.is_dir() else 0o644), one


def test_an_upgrade_is_one_step_and_keeps_what_processes_may_still_load(folder: Path, wheels: Path) -> None:
    install(folder, [make_wheel(wheels)])
    before = (folder / "acme").resolve()
    newer = make_wheel(wheels, version="1.1", files={"acme/__init__.py": b"", "acme/plugin.py": b"VALUE = 2\n"})
    install(folder, [newer])
    assert (folder / "acme" / "acme" / "plugin.py").read_text() == "VALUE = 2\n"
    assert before.is_dir()
    install(folder, [newer])  # the same again changes nothing
    install(folder, [make_wheel(wheels, version="1.2")])
    assert not before.exists()
    remove(folder, "acme")
    assert [one.name for one in folder.iterdir() if not one.name.startswith(".")] == []
    assert list((folder / ".store").iterdir()) == []
    with pytest.raises(LookupError):
        remove(folder, "acme")
    for name in ("../acme", ".store", "", "acme/.."):
        with pytest.raises(LookupError):
            remove(folder, name)


def test_dependencies_come_along(folder: Path, wheels: Path) -> None:
    plugin = make_wheel(
        wheels, requires=[ABI, "modbus>=2", "anyio", 'winonly; sys_platform == "win32"', 'more; extra == "x"']
    )
    with pytest.raises(Misfit, match="acme needs modbus>=2: give its wheel too"):
        install(folder, [plugin])
    old = make_wheel(wheels, "modbus", "1.0", entry_points={}, requires=())
    with pytest.raises(Misfit, match=r"acme needs modbus>=2; the wheel given is 1\.0"):
        install(folder, [plugin, old])
    install(folder, [plugin, make_wheel(wheels, "modbus", "2.5", entry_points={}, requires=())])
    assert installed(folder) == {"acme": [("acme", "1.0"), ("modbus", "2.5")]}
    other = make_wheel(wheels, "other", requires=[ABI, "modbus"])
    with pytest.raises(Misfit, match=r"acme brings modbus 2\.5, this 1\.0: one process has one of them"):
        install(folder, [other, old])
    install(folder, [other, make_wheel(wheels, "modbus", "2.5", entry_points={}, requires=())])


Make = Callable[[Path], Path]
BAD: dict[str, tuple[Make, str]] = {
    "a changed file": (lambda at: make_wheel(at, tampered={"acme/plugin.py": b"VALUE = 9\n"}), "not what RECORD says"),
    "a longer file": (lambda at: make_wheel(at, tampered={"acme/plugin.py": b"VALUE = 1\n" * 9}), "not what RECORD says"),
    "a file too many": (lambda at: make_wheel(at, unrecorded={"acme/extra.py": b""}), "is not in RECORD"),
    "a path out": (lambda at: make_wheel(at, files={"../evil.py": b""}), "leads elsewhere"),
    "an absolute path": (lambda at: make_wheel(at, files={"/etc/evil": b""}), "leads elsewhere"),
    "a backslash": (lambda at: make_wheel(at, files={"acme\\evil.py": b""}), "leads elsewhere"),
    "a link": (lambda at: make_wheel(at, link="acme/link"), "no plain file"),
    "a pth file": (lambda at: make_wheel(at, files={"acme.pth": b"import os"}), "would run code"),
    "data elsewhere": (lambda at: make_wheel(at, files={"acme-1.0.data/data/etc/x": b""}), "outside of the plugin's folder"),
    "two spellings": (lambda at: make_wheel(at, files={"acme/A.py": b"", "acme/a.py": b""}), "is there twice"),
    "a coming format": (lambda at: make_wheel(at, wheel_version="2.0"), "format 2.0"),
    "no wheel": (lambda at: _written(at / "acme-1.0-py3-none-any.whl", b"nothing"), "not a zip"),
    "a bad name": (lambda at: _written(at / "acme.whl", b""), "no name of a wheel"),
}  # fmt: skip
MISFIT: dict[str, tuple[Make, str]] = {
    "another machine": (lambda at: make_wheel(at, tag="cp311-cp311-win_amd64"), "is built for cp311-cp311-win_amd64"),
    "another Python": (lambda at: make_wheel(at, tag=f"cp{sys.version_info[0]}{sys.version_info[1] + 1}-cp31-linux_x86_64"), "is built for"),
    "a coming Python": (lambda at: make_wheel(at, python=">=3.99"), "is for Python >=3.99"),
    "another ABI": (lambda at: make_wheel(at, requires=["edgesite[plugin-abi-2]"]), "needs plugin ABI 2; this program has 1"),
    "no ABI": (lambda at: make_wheel(at, requires=["edgesite"]), "does not say for which plugin ABI"),
    "no plugin": (lambda at: make_wheel(at, entry_points={}), "no entry point of the group edgesite.plugins"),
    "a plugin of ours": (lambda at: make_wheel(at, entry_points={"cloud": "acme.plugin"}), "one of edgesite's own"),
    "our code": (lambda at: make_wheel(at, entry_points={"mine": "edgesite.cloud.plugin"}), "one of edgesite's own"),
    "our distribution": (lambda at: make_wheel(at, "anyio", "99.0"), "anyio is part of edgesite"),
    "our package": (lambda at: make_wheel(at, files={"edgesite/evil.py": b""}), "brings edgesite.evil, which edgesite has"),
    "a bundled package": (lambda at: make_wheel(at, files={"anyio/__init__.py": b""}), "brings anyio, which edgesite's own bundle has"),
    "the standard library": (lambda at: make_wheel(at, files={"json.py": b""}), "brings json, which the standard library has"),
    "a newer edgesite": (lambda at: make_wheel(at, requires=[ABI, "edgesite>=99"]), "needs edgesite>=99; edgesite's own is"),
}  # fmt: skip


@pytest.mark.parametrize("what", [*BAD, *MISFIT])
def test_what_is_refused_leaves_nothing(folder: Path, wheels: Path, what: str) -> None:
    install(folder, [make_wheel(wheels, version="0.9")])
    before = sorted(folder.rglob("*"))
    make, said = (BAD | MISFIT)[what]
    with pytest.raises(BadWheel if what in BAD else Misfit) as failed:
        install(folder, [make(wheels)])
    assert said in str(failed.value)
    assert sorted(folder.rglob("*")) == before


def test_two_plugins_of_one_name_or_module_do_not_meet(folder: Path, wheels: Path) -> None:
    install(folder, [make_wheel(wheels)])
    with pytest.raises(Misfit, match="the plugin acme is there already, by acme in acme"):
        install(folder, [make_wheel(wheels, "beta", entry_points={"acme": "beta.plugin"})])
    with pytest.raises(Misfit, match="brings acme, as acme in acme does"):
        install(folder, [make_wheel(wheels, "beta", files={"acme/__init__.py": b"", "beta.py": b""})])


def test_a_crash_while_unpacking_leaves_the_old_one(
    folder: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, [make_wheel(wheels)])

    def dies(*names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)  # everything is unpacked, the link is not led there yet
    with pytest.raises(KeyboardInterrupt):
        install(folder, [make_wheel(wheels, version="2.0")])
    monkeypatch.undo()
    assert installed(folder) == {"acme": [("acme", "1.0")]}
    install(folder, [make_wheel(wheels, version="2.0")])
    assert installed(folder) == {"acme": [("acme", "2.0")]}


def test_a_folder_that_others_may_write_to_is_not_read(folder: Path, wheels: Path) -> None:
    install(folder, [make_wheel(wheels)])
    folder.chmod(0o777)
    assert plugin_places(folder) == []


def test_modules_are_named_as_deep_as_they_are_shared() -> None:
    files = [
        "acme/__init__.py",
        "acme/sub/x.py",
        "shared/vendor/thing.cpython-311-x86_64-linux-gnu.so",
        "single.py",
        "acme-1.0.dist-info/METADATA",
    ]
    assert importable(files) == {"acme", "shared.vendor.thing", "single"}


@pytest.mark.parametrize(
    ("requires", "declared", "is_well"),
    [
        (["edgesite[plugin-abi-1]"], True, True),
        (["edgesite [quic, plugin-abi-1]>=0.1"], True, True),
        (["edgesite[plugin-abi-2,plugin-abi-1]"], True, True),
        (["edgesite[plugin-abi-2]"], False, False),
        (["edgesite"], False, True),
        (["edgesite"], True, False),
        (["not-edgesite[plugin-abi-1]"], True, False),
    ],
)
def test_the_abi_is_read_from_the_requirements(requires: list[str], declared: bool, is_well: bool) -> None:
    assert (abi_problem(requires, declared=declared) == "") is is_well


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
