"""`edgesite mapper new`: its project's own tests pass, its manifests are taken, and its program serves an edge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import yaml
from mapper_edge import edge

from edgesite.cli.main import main
from edgesite.kube.causes import Causes
from edgesite.kube.devices.rules import check_device, check_model
from edgesite.runtime.plugins import PluginHost

RUFF = Path(sys.executable).with_name("ruff")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("new")
    assert main(["mapper", "new", "hot-furnace", "--protocol", "furnace", "--dir", str(where)]) == 0
    return where / "edgesite-mapper-hot-furnace"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short: those of sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="map") as name:
        yield Path(name)


def run(project: Path, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=project, capture_output=True, text=True, timeout=120, check=False)


def test_the_tests_of_a_new_project_pass(project: Path) -> None:
    done = run(project, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    checked = run(project, RUFF, "check", "--no-cache", "--select", "E,F,W,I,UP,B", "--ignore", "E501", ".")
    assert checked.returncode == 0, checked.stdout


def test_its_manifests_are_taken(project: Path) -> None:
    model, device = yaml.safe_load_all((project / "deploy/device.yaml").read_text())
    causes = Causes()
    check_model(causes, model)
    check_device(causes, device, model)
    assert not causes
    (deployment,) = yaml.safe_load_all((project / "deploy/deployment.yaml").read_text())
    assert deployment["spec"]["template"]["spec"]["containers"][0]["name"] == "mapper"


def test_its_unit_is_one(project: Path, tmp_path: Path) -> None:
    """With a program that there is in place of the one that is not installed."""
    (unit,) = (project / "deploy").glob("*.service")
    text = unit.read_text()
    assert "ExecStart=/usr/local/bin/edgesite-mapper-hot-furnace " in text
    (here := tmp_path / unit.name).write_text(text.replace("/usr/local/bin/edgesite-mapper-hot-furnace", "/bin/true"))
    done = run(tmp_path, "systemd-analyze", "verify", "--man=no", here)
    assert done.returncode == 0
    assert unit.name not in done.stderr


def test_its_plugin_is_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    import edgesite_mapper_hot_furnace.plugin as plugin  # type: ignore[import-not-found]

    plugins = PluginHost(())
    plugins.register(plugin, "mapper-hot-furnace")
    assert plugins.mapper("furnace").__name__ == "HotFurnaceDriver"  # type: ignore[union-attr]
    assert plugins.mapper("another") is None


@pytest.mark.anyio
async def test_its_program_serves_an_edge_until_it_is_stopped(project: Path, folder: Path) -> None:
    async with edge(folder) as site:
        model, device = yaml.safe_load_all((project / "deploy/device.yaml").read_text())
        for obj in (model, device):
            obj["metadata"] |= {"namespace": "default", "uid": obj["kind"], "resourceVersion": "1"}
            await site.apply(obj)
        argv = ["--edge-socket", f"{folder}/dmi.sock", "--socket", f"{folder}/m.sock", "--http", "127.0.0.1:0"]
        program = await anyio.open_process(
            [sys.executable, "-m", "edgesite_mapper_hot_furnace", *argv], cwd=project, stdout=None, stderr=None
        )
        try:
            await site.reported("target", "20", "heater-1")
            device["spec"]["properties"][0]["desired"] = {"value": "24"}
            device["metadata"]["resourceVersion"] = "2"
            await site.apply(device, "update")
            await site.reported("actual", "24", "heater-1")
            program.send_signal(signal.SIGTERM)
            with anyio.fail_after(60):
                assert await program.wait() == 0
        finally:
            if program.returncode is None:
                program.kill()
            await program.aclose()


@pytest.mark.parametrize(
    "argv",
    [
        ["../x"],
        ["Furnace"],
        ["a--b"],
        ["-x"],
        ["a" * 41],
        [""],
        ["furnace", "--protocol", "two words"],
        ["furnace", "--protocol", 'x"y'],
    ],
    ids=repr,
)
def test_bad_names_are_refused(tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main(["mapper", "new", "--dir", str(tmp_path), *argv])
    except SystemExit as exc:  # argparse, for what looks like an option
        code = exc.code
    assert code == 2
    assert capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "edgesite-mapper-furnace"
    os.symlink(tmp_path / "nowhere", mine)
    assert main(["mapper", "new", "furnace", "--dir", str(tmp_path)]) == 2
    assert "there already" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [mine]
