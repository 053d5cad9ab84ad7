"""Volume files: what they hold, that they change all at once, and that nothing leads out of them."""

from __future__ import annotations

import base64
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged.cgroups import end_cgroup, remove_cgroup
from edgesite.edge.edged.environment import Facts
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.volumes import subpaths
from edgesite.edge.edged.volumes.atomic import File, write_payload
from edgesite.edge.edged.volumes.host import mount_memory, prepare_host_path, remove_tree, resolve_sub_path
from edgesite.edge.edged.volumes.payload import VolumeError, projected_sources, source_files, volume_references

POD = Pod({"metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"b": "2", "a": 'x"'}}, "spec": {}})
FACTS = Facts("n1")


def read(target: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and not str(path.relative_to(target)).startswith("..")
    } | {
        f"{link.name}/{path.relative_to(link.resolve())}": path.read_bytes()
        for link in target.iterdir()
        if link.is_symlink() and link.is_dir() and not link.name.startswith("..")
        for path in link.resolve().rglob("*")
        if path.is_file()
    }


def test_a_new_version_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    assert write_payload(tmp_path, {"a": File(b"1"), "dir/b": File(b"2", 0o600)}, "v1")
    before = os.readlink(tmp_path / "..data")
    assert not write_payload(tmp_path, {"a": File(b"1"), "dir/b": File(b"2", 0o600)}, "v2")
    assert os.readlink(tmp_path / "..data") == before
    assert write_payload(tmp_path, {"a": File(b"3"), "c": File(b"4")}, "v3")
    assert read(tmp_path) == {"a": b"3", "c": b"4"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["..data", "..v3", "a", "c"]


def test_modes_are_part_of_a_version(tmp_path: Path) -> None:
    write_payload(tmp_path, {"a": File(b"1", 0o400)}, "v1")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o400
    assert write_payload(tmp_path, {"a": File(b"1", 0o440)}, "v2")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o440


def test_what_a_crash_left_is_cleared_by_the_next_version(tmp_path: Path) -> None:
    write_payload(tmp_path, {"a": File(b"1")}, "v1")
    (tmp_path / "..half").mkdir()
    os.symlink("..half", tmp_path / "..data_tmp")
    write_payload(tmp_path, {"a": File(b"2")}, "v2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["..data", "..v2", "a"]


@given(
    st.lists(
        st.dictionaries(
            st.text("abcd", min_size=1, max_size=3),
            st.builds(File, st.binary(max_size=4), st.sampled_from([0o644, 0o600])),
        ),
        max_size=5,
    )
)
def test_any_row_of_versions_ends_with_the_last(tmp_path_factory: pytest.TempPathFactory, versions: list[Any]) -> None:
    target = tmp_path_factory.mktemp("volume")
    for number, payload in enumerate(versions):
        write_payload(target, payload, f"v{number}")
        assert read(target) == {name: file.content for name, file in payload.items()}


# What files hold


def files(source: dict[str, Any], objects: Any = None) -> dict[str, File]:
    return source_files(POD, source, objects or {}, FACTS, 0o640)


def test_items_choose_keys_paths_and_modes() -> None:
    objects = {("configmap", "c"): {"data": {"k": "v", "x": "y"}, "binaryData": {"b": "AAE="}}}
    assert files({"configMap": {"name": "c"}}, objects) == {
        "k": File(b"v", 0o640),
        "x": File(b"y", 0o640),
        "b": File(b"\0\1", 0o640),
    }
    items = [{"key": "k", "path": "in/side", "mode": 0}]
    assert files({"configMap": {"name": "c", "items": items}}, objects) == {"in/side": File(b"v", 0)}


def test_missing_objects_and_keys_name_themselves() -> None:
    with pytest.raises(VolumeError, match='configmap "c" not found'):
        files({"configMap": {"name": "c"}})
    with pytest.raises(VolumeError, match="references non-existent secret key: k"):
        files({"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}}, {("secret", "s"): {"data": {}}})
    assert files({"secret": {"secretName": "s", "optional": True}}) == {}


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "", "..data"])
def test_items_stay_inside(path: str) -> None:
    objects = {("configmap", "c"): {"data": {"k": "v"}}}
    with pytest.raises(VolumeError, match="must stay inside"):
        files({"configMap": {"name": "c", "items": [{"key": "k", "path": path}]}}, objects)


def test_keys_stay_inside_too() -> None:
    for key in ("../up", "/etc/passwd", "..data"):
        with pytest.raises(VolumeError, match="must stay inside"):
            files({"configMap": {"name": "c"}}, {("configmap", "c"): {"data": {key: "v"}}})


def test_labels_are_sorted_and_quoted() -> None:
    source = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    assert files(source)["labels"].content == b'a="x\\""\nb="2"'


def test_references_of_every_kind_of_volume() -> None:
    volumes = [
        {"name": "a", "configMap": {"name": "c"}},
        {"name": "b", "secret": {"secretName": "s"}},
        {
            "name": "p",
            "projected": {"sources": [{"secret": {"name": "t", "optional": True}}, {"configMap": {"name": "d"}}]},
        },
        {"name": "e", "emptyDir": {}},
    ]
    found = {(one.kind, one.name, one.optional) for one in volume_references(Pod({"spec": {"volumes": volumes}}))}
    assert found == {
        ("configmap", "c", False),
        ("secret", "s", False),
        ("secret", "t", True),
        ("configmap", "d", False),
    }
    assert projected_sources(volumes[3]) == []


def test_a_broken_secret_is_refused() -> None:
    with pytest.raises(VolumeError, match="base64"):
        files({"secret": {"secretName": "s"}}, {("secret", "s"): {"data": {"k": "a"}}})
    good = base64.b64encode(b"x").decode()
    assert files({"secret": {"secretName": "s"}}, {("secret", "s"): {"data": {"k": good}}})["k"].content == b"x"


# The host's side


@pytest.mark.parametrize(
    ("kind", "name", "well"),
    [
        ("", "missing", True),
        ("DirectoryOrCreate", "made", True),
        ("FileOrCreate", "made-file", True),
        ("Directory", "dir", True),
        ("Directory", "file", False),
        ("File", "missing", False),
        ("Socket", "file", False),
        ("Nonsense", "dir", False),
    ],
)
def test_host_path_types(tmp_path: Path, kind: str, name: str, well: bool) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    if well:
        prepare_host_path(str(tmp_path / name), kind)
    else:
        with pytest.raises(VolumeError, match="hostPath type check failed"):
            prepare_host_path(str(tmp_path / name), kind)


def test_sub_paths_are_made_and_never_lead_out(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", volume / "link")
    assert resolve_sub_path(volume, "new/dir").is_dir()
    for path in ("../outside", "link", "link/x", "/etc"):
        with pytest.raises(VolumeError):
            resolve_sub_path(volume, path)


def test_a_sub_path_stays_what_it_was_when_it_was_looked_at(tmp_path: Path) -> None:
    volume, secret, place = tmp_path / "volume", tmp_path / "secret", tmp_path / "subpaths/v/web/0"
    (volume / "sub").mkdir(parents=True)
    (volume / "sub" / "mine").touch()
    secret.mkdir()
    try:
        source = subpaths.pin(volume, "sub", place)
        (volume / "sub").rename(volume / "away")
        (volume / "sub").symlink_to(secret)
        if source == place:  # root: else nothing can be held fast
            assert [one.name for one in source.iterdir()] == ["mine"]
        with pytest.raises(VolumeError):
            subpaths.pin(volume, "sub", place)
        again = subpaths.pin(volume, "away/new", place)
        assert list(again.iterdir()) == []
        (volume / "file").write_text("text")
        assert subpaths.pin(volume, "file", place).read_text() == "text"
    finally:
        subpaths.release(tmp_path / "subpaths")
    assert not (tmp_path / "subpaths").exists()
    assert (volume / "away" / "mine").exists(), "what was bound is the volume's"
    assert (volume / "file").read_text() == "text"


def test_sub_paths_that_are_made_are_as_open_as_their_volume(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o3777)
    try:
        subpaths.pin(volume, "new/dir", tmp_path / "subpaths/v/web/0")
        assert [stat.S_IMODE((volume / one).stat().st_mode) for one in ("new", "new/dir")] == [0o3777] * 2
    finally:
        subpaths.release(tmp_path / "subpaths")


def test_links_inside_a_volume_may_be_sub_paths(tmp_path: Path) -> None:
    (tmp_path / "volume/real").mkdir(parents=True)
    (tmp_path / "volume/real/x").touch()
    (tmp_path / "volume/link").symlink_to("real")
    try:
        source = subpaths.pin(tmp_path / "volume", "link", tmp_path / "subpaths/v/web/0")
        assert [one.name for one in source.iterdir()] == ["x"]
    finally:
        subpaths.release(tmp_path / "subpaths")


def test_a_tree_that_is_not_there_is_gone_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")
    (tmp_path / "a" / "b").mkdir(parents=True)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_tree_with_memory_in_it_goes_whatever_its_name(tmp_path: Path) -> None:
    mount_memory(tmp_path / "my site" / "a\tb")  # does nothing but make the folder where this takes root
    remove_tree(tmp_path / "my site")
    assert not (tmp_path / "my site").exists()


@pytest.mark.parametrize("unified", [True, False])
def test_empty_cgroups_are_removed_in_every_hierarchy(tmp_path: Path, unified: bool) -> None:
    parent = "/kubepods/podu"
    tops = [tmp_path] if unified else [tmp_path / "cpu", tmp_path / "memory"]
    for top in tops:
        (top / "kubepods/podu/child").mkdir(parents=True)
    if unified:
        (tmp_path / "cgroup.controllers").touch()
    assert remove_cgroup(parent, tmp_path)
    assert remove_cgroup("/../escape", tmp_path)
    assert all((top / "kubepods").is_dir() and not (top / "kubepods/podu").exists() for top in tops)


def test_what_is_left_in_the_cgroup_of_a_pod_that_has_ended_is_killed(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    inner, other = tmp_path / "kubepods/podu/lost", tmp_path / "kubepods/podv"
    for folder in (inner, other):
        folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as lost, subprocess.Popen(["sleep", "60"]) as stays:
        (inner / "cgroup.procs").write_text(f"{lost.pid}\n")
        (other / "cgroup.procs").write_text(f"{stays.pid}\n")
        end_cgroup("/kubepods/podu", tmp_path)
        assert lost.wait(10) == -signal.SIGKILL
        end_cgroup("/kubepods/podu", tmp_path)  # it is gone by now
        assert stays.poll() is None
        stays.kill()
