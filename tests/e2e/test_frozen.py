"""What users install: the frozen folder, the one-file binaries and the static one in an empty root.

They are frozen with this Python (`packaging/freeze build --here`); EDGESITE_FROZEN names a folder that `make dist` made, to try that one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from e2e_site import NO_PORTS, Kubectl, Program, Site, eventually, free_port, supervisors_of

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = tomllib.loads((ROOT / "benchmarks" / "budgets.toml").read_text())["frozen"]
NAMES = ("edgesite", "cloudcore", "edgecore", "iptablesmanager", "keadm")
#: A vendor's plugin, unpacked: a command that tells what a plugin finds in the program.
PLUGIN = {
    "vendor-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: vendor\nVersion: 1.0\n",
    "vendor-1.0.dist-info/entry_points.txt": "[edgesite.plugins]\nvendor = vendor\n",
    "anyio/__init__.py": "raise RuntimeError('a plugin shadows the program')\n",
    "vendor.py": """
import argparse, importlib, json, multiprocessing, os, sys
from edgesite.hookspecs import Command, impl

def double(number):
    return 2 * number

def run(options):
    missing = []
    for name in options.modules:
        try:
            importlib.import_module(name)
        except ImportError as exc:
            missing.append(f"{name}: {exc}")
    doubled = None
    if options.processes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            doubled = pool.map(double, [21])
    import anyio
    paths = {name: os.environ.get(name) for name in ("LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG")}
    print(json.dumps({"missing": missing, "doubled": doubled, "anyio": anyio.__name__, "paths": paths, "version": sys.version_info[:2]}))
    return 0

def configure(parser):
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("modules", nargs="*")

@impl
def edgesite_commands():
    return [Command("vendor", "tell what a plugin finds", configure, run)]
""",
}


@pytest.fixture(scope="module")
def frozen() -> Path:
    """The folder with everything that was frozen."""
    if made := os.environ.get("EDGESITE_FROZEN"):
        return Path(made).absolute()
    done = subprocess.run(
        [sys.executable, ROOT / "packaging" / "freeze", "build", "--here"], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    return Path(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def folder(frozen: Path) -> Path:
    return frozen / "lib" / "kubeedge"


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plugins")
    for name, text in PLUGIN.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return place


def ask(*argv: object, **environment: str) -> str:
    """Run a program with a bare environment and return what it prints."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | environment,
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_answers_to_every_name(folder: Path, tmp_path: Path, name: str) -> None:
    link = tmp_path / name  # as packages put it into /usr/bin
    link.symlink_to(folder / name)
    assert name in ask(link, "--help").split("\n")[0]


def test_files_say_their_version_and_pass_exit_codes_on(frozen: Path, folder: Path) -> None:
    for program in (folder / "edgesite", frozen / "edgesite"):
        assert ask(program, "--version").startswith("KubeEdge v1.12")
        wrong = subprocess.run([program, "no-such-command"], capture_output=True, text=True, check=False)
        assert wrong.returncode == 2
        assert "no-such-command" in wrong.stderr


def test_sizes_are_within_their_budgets(frozen: Path, folder: Path) -> None:
    installed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    assert installed / 1e6 <= BUDGETS["folder_mb"]
    assert (frozen / "edgesite").stat().st_size / 1e6 <= BUDGETS["file_mb"]


def test_built_in_plugins_come_from_their_entry_points(folder: Path) -> None:
    loaded = ask(folder / "edgesite", "plugins")
    for name in ("apiserver", "cloud", "controlplane", "edge", "runtime"):
        assert name in loaded


def test_a_plugin_finds_the_whole_standard_library_and_cannot_shadow_the_program(folder: Path, plugins: Path) -> None:
    sys.path.insert(0, str(ROOT / "packaging" / "freeze"))
    from contents import standard_library

    wanted = standard_library()
    here = "import importlib, sys\nfor name in sys.argv[1:]:\n  try: importlib.import_module(name)\n  except ImportError: print(name)"
    lacking = ask(sys.executable, "-W", "ignore", "-c", here, *wanted).split()  # modules of other systems
    environment = {"EDGESITE_PLUGINS_DIR": str(plugins), "LD_LIBRARY_PATH": "/opt/of/the/host"}
    told = json.loads(ask(folder / "edgesite", "vendor", "--processes", *wanted, **environment))
    assert [one for one in told["missing"] if one.partition(":")[0] not in lacking] == []
    assert told["doubled"] == [42]
    assert told["anyio"] == "anyio"
    assert told["paths"] == {"LD_LIBRARY_PATH": "/opt/of/the/host", "LD_LIBRARY_PATH_ORIG": None}


def test_the_folder_runs_a_site_whose_pods_outlive_it(folder: Path, tmp_path: Path) -> None:
    with closing(Site(tmp_path, program=folder / "edgesite")) as site:
        site.start()
        kubectl = site.kubectl()
        kubectl("run", "sleeper", "--image=none", "--command", "--", "sh", "-c", "env; exec sleep 1000")
        kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=100s")
        assert "LD_LIBRARY_PATH" not in kubectl("logs", "sleeper")
        (running,) = site.workload()
        site.kill()
        site.start()
        kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=100s")
        assert site.workload() == [running]
        assert kubectl("exec", "sleeper", "--", "echo", "still here") == "still here\n"


@pytest.fixture
def empty_root(frozen: Path, plugins: Path, tmp_path: Path) -> Path:
    """A root with the static binary, a plugin, and nothing else: no libc, no shell, no /dev, no /tmp."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    shutil.copy(frozen / "edgesite-static", root / "edgesite")
    (root / "edgecore").symlink_to("edgesite")
    shutil.copytree(plugins, root / "usr/lib/kubeedge/plugins")
    return root


def test_the_static_file_runs_a_site_in_an_empty_root(empty_root: Path, tmp_path: Path) -> None:
    inside = ("unshare", "--mount", "--mount-proc", f"--root={empty_root}")
    assert ask("chroot", empty_root, "/edgecore", "--help").startswith("usage: edgecore")
    told = json.loads(ask(*inside, "/edgesite", "vendor", "http.server", "sqlite3", "ssl"))
    assert told["missing"] == []
    port = free_port()
    arguments = (
        "up",
        "--data-dir",
        "/data",
        "--node-name",
        "bare",
        "--runtime",
        "process",
        "--api-address",
        f"127.0.0.1:{port}",
    )
    ports = [one.replace("modules.", "edge.modules.", 1) for one in NO_PORTS]
    with closing(Program(tmp_path / "log", *arguments, *ports, prefix=inside, program=Path("/edgesite"))) as program:
        program.wait_line("Ready after")
        kubectl = Kubectl("1.32", empty_root / "data" / "admin.kubeconfig", tmp_path)
        kubectl("run", "once", "--image=none", "--restart=Never", "--command", "--", "/edgesite", "version")
        kubectl("wait", "pod/once", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=100s")
        assert kubectl("logs", "once").startswith("KubeEdge v1.12")
        kubectl("delete", "pod", "once")
        assert program.stop() == 0
    eventually(lambda: not supervisors_of(Path("/data/")), "the end of the supervisor")


def test_the_static_file_unpacks_once_where_it_may_and_removes_what_nobody_runs(frozen: Path, tmp_path: Path) -> None:
    program = frozen / "edgesite-static"
    place = tmp_path / "unpacked"
    stale = place / ("0" * 32)
    stale.mkdir(parents=True)
    (stale / ".lock").touch()
    place.chmod(0o755)
    starts = [subprocess.Popen([program, "--version"], env={"EDGESITE_UNPACK_DIR": str(place)}) for _ in range(3)]
    assert [start.wait(60) for start in starts] == [0, 0, 0]
    (made,) = place.iterdir()
    before = made.stat().st_ino
    ask(program, "--version", EDGESITE_UNPACK_DIR=str(place))
    assert [one.stat().st_ino for one in place.iterdir()] == [before]
    place.chmod(0o777)  # anybody could put a program there
    refused = subprocess.run(
        [program, "--version"], env={"EDGESITE_UNPACK_DIR": str(place)}, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "not a folder of our own" in refused.stderr


def test_a_damaged_static_file_says_so(frozen: Path, tmp_path: Path) -> None:
    whole = (frozen / "edgesite-static").read_bytes()
    middle = len(whole) // 2
    cases = {"cut": whole[:middle], "changed": whole[:middle] + bytes(4096) + whole[middle + 4096 :]}
    for name, data in cases.items():
        program = tmp_path / name
        program.write_bytes(data)
        program.chmod(0o755)
        place = tmp_path / f"{name}-unpacked"
        done = subprocess.run(
            [program, "--version"], env={"EDGESITE_UNPACK_DIR": str(place)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "damaged" in done.stderr
        assert not place.exists() or not list(place.iterdir())
