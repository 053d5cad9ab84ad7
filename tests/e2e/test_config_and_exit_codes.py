"""Configuration as users write it, exit codes, one clear line for each mistake, and clean ends and beginnings."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_site import PROGRAM, Kubectl, Program, Site, eventually, free_port

KINDS = {"up": "EdgeSite", "cloud": "CloudCore", "edge": "EdgeCore"}


def edgesite(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *arguments], capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env}
    )


def refused(code: int, *arguments: str, **env: str) -> str:
    """Run what must end with that code, and return what it said: nothing of Python's insides."""
    done = edgesite(*arguments, **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", KINDS)
def test_printed_defaults_are_complete_and_valid(command: str, tmp_path: Path) -> None:
    for flag in ("--defaultconfig", "--minconfig"):
        done = edgesite(command, flag)
        assert done.returncode == 0
        assert yaml.safe_load(done.stdout)["kind"] == KINDS[command]
        (file := tmp_path / "printed.yaml").write_text(done.stdout)
        assert f"a valid {KINDS[command]}" in edgesite("config", "check", str(file)).stdout


def test_a_site_from_a_file_with_overrides(new_site: Callable[..., Site], tmp_path: Path) -> None:
    file, port, cidr = tmp_path / "site.yaml", free_port(), "10.77.0.0/16"
    file.write_text(
        "apiVersion: edgesite.config.kubeedge.io/v1alpha1\nkind: EdgeSite\n"
        f"api: {{serviceClusterIPRange: {cidr}, clusterName: from-file}}\n"
        "edge: {modules: {edged: {hostnameOverride: from-file, tailoredKubeletConfig: {maxPods: 7}}}}\n"
    )
    site = new_site(node="from-option")
    health = f"edge.modules.edged.tailoredKubeletConfig.healthzPort={port}"
    site.start("--config", str(file), "--set", health, env={"EDGESITE_API__CLUSTERNAME": "from-environment"})
    kubectl = site.kubectl()
    (node,) = kubectl.json("get", "nodes")["items"]
    assert node["metadata"]["name"] == "from-option"
    assert node["status"]["capacity"]["pods"] == "7"
    assert kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}") == "10.77.0.1"
    assert kubectl("config", "view", "-o", "jsonpath={.clusters[0].name}") == "from-environment"
    with socket.create_connection(("127.0.0.1", port), 5):
        pass


def test_kubeedge_s_own_files(tmp_path: Path) -> None:
    """CloudCore v1alpha1 and EdgeCore v1alpha2 as KubeEdge 1.12 writes them bring up the two roles."""
    hub, bootstrap, tunnel, api = (free_port() for _ in range(4))
    cloud_file, edge_file, log = tmp_path / "cloudcore.yaml", tmp_path / "edgecore.yaml", tmp_path / "log"
    cloud_file.write_text(
        "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n"
        "kubeAPIConfig: {kubeConfig: '', qps: 100, burst: 200}\n"
        "modules:\n  cloudHub:\n    advertiseAddress: [127.0.0.1]\n    nodeLimit: 10\n"
        f"    https: {{enable: true, port: {bootstrap}}}\n    websocket: {{enable: true, port: {hub}}}\n"
        f"  cloudStream: {{enable: true, tunnelPort: {tunnel}}}\n  router: {{enable: false}}\n"
    )
    cloud = Program(
        log,
        "cloud",
        "--data-dir",
        str(tmp_path / "c"),
        "--config",
        str(cloud_file),
        "--api-address",
        f"127.0.0.1:{api}",
    )
    try:
        cloud.wait_line("cloud role: ready after")
        token = edgesite("token", "--data-dir", str(tmp_path / "c")).stdout.strip()
        edge_file.write_text(
            "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\n"
            "modules:\n  edged:\n    hostnameOverride: from-kubeedge\n    tailoredKubeletConfig: {readOnlyPort: 0, healthzPort: 0}\n"
            f"  edgeHub:\n    httpServer: https://127.0.0.1:{bootstrap}\n    token: {token}\n"
            f"    websocket: {{enable: true, server: '127.0.0.1:{hub}', handshakeTimeout: 30}}\n"
            f"  edgeStream: {{enable: true, server: '127.0.0.1:{tunnel}'}}\n  eventBus: {{mqttMode: 2}}\n"
        )
        edge = Program(
            log, "edge", "--data-dir", str(tmp_path / "e"), "--config", str(edge_file), "--runtime", "process"
        )
        try:
            edge.wait_line("edge role of node from-kubeedge: ready after")
            kubeconfig = tmp_path / "c" / "admin.kubeconfig"
            kubectl = Kubectl("1.32", kubeconfig, tmp_path)
            eventually(lambda: "from-kubeedge" in kubectl("get", "nodes"), "the node")
            assert edge.stop() == 0
        finally:
            edge.close()
        assert cloud.stop() == 0
    finally:
        cloud.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api:\n  adress: x\n", "site.yaml:4: api.adress: unknown field; did you mean address?"),
        (
            "edge:\n  modules:\n    edged:\n      tailoredKubeletConfig:\n        maxPods: many\n",
            "site.yaml:7: edge.modules.edged.tailoredKubeletConfig.maxPods",
        ),
        ("api: {maxRequestBytes: 3}\n", "site.yaml:3: api.maxRequestBytes"),
        ("api: [\n", "site.yaml:"),
        ("api: {address: a, address: b}\n", "site.yaml:3:"),
    ],
)
def test_mistakes_in_a_file_are_named_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    (file := tmp_path / "site.yaml").write_text(
        f"apiVersion: edgesite.config.kubeedge.io/v1alpha1\nkind: EdgeSite\n{text}"
    )
    assert said in refused(2, "up", "--data-dir", str(tmp_path / "d"), "--config", str(file))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--bogus"], "--bogus"),
        (["nonsense"], "there is no command 'nonsense'"),
        ([], "usage:"),
        (["up", "--api-address", "127.0.0.1:99999"], "HOST:PORT"),
        (["up", "--node-name", "BAD NAME"], "no valid node name"),
        (["up", "--edge-nodes", "1000"], "must be from 0 to"),
        (["up", "--set", "edge.modules.nonsense=1"], "edge.modules.nonsense: unknown field"),
        (["up", "--set", "no-value"], "no-value"),
        (["up", "--config", "/no/such/file"], "does not exist"),
        (["edge", "--node-name", "x"], "--cloud HOST is needed"),
        (["cloud", "--hub-port", "0"], "1 to 65535"),
    ],
)
def test_bad_usage(arguments: list[str], said: str, tmp_path: Path) -> None:
    place = ["--data-dir", str(tmp_path / "d")] if arguments and arguments[0] != "nonsense" else []
    done = edgesite(*arguments, *place)
    assert done.returncode == 2
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_mistake_in_the_environment(tmp_path: Path) -> None:
    assert "api.maxRequestBytes: Input should be a valid integer" in refused(
        2, "up", "--data-dir", str(tmp_path), EDGESITE_API__MAXREQUESTBYTES="few"
    )


@contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_what_the_machine_refuses_is_one_line(tmp_path: Path) -> None:
    with taken() as port:
        for command in ("up", "cloud"):
            place = ["--data-dir", str(tmp_path / command), "--api-address", f"127.0.0.1:{port}"]
            (line,) = refused(1, command, *place).splitlines()
            assert f"the API cannot listen on 127.0.0.1:{port}: Address already in use" in line
    (file := tmp_path / "file").touch()
    for folder in (file, file / "below", Path("/proc/nothing")):
        (line,) = refused(1, "up", "--data-dir", str(folder)).splitlines()
        assert str(folder) in line
    (line,) = refused(1, "token", "--data-dir", str(tmp_path / "none")).splitlines()
    assert "no token" in line


def test_one_process_for_one_data_folder(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.start()
    assert site.program is not None
    (line,) = refused(1, "up", "--data-dir", str(site.data), "--api-address", f"127.0.0.1:{free_port()}").splitlines()
    assert f"in use by another edgesite process (pid {site.program.process.pid})" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_the_next_start_finds_everything(
    new_site: Callable[..., Site], number: signal.Signals
) -> None:
    site = new_site()
    site.start()
    assert (site.kubeconfig.stat().st_mode & 0o777) == 0o600
    kubectl = site.kubectl()
    kubectl("create", "configmap", "kept", "--from-literal=a=b")
    kubectl("run", "one", "--image=host", "--command", "--", "sleep", "1000")
    started = lambda: kubectl.json("get", "pod", "one")["status"].get("containerStatuses", [{}])[0].get("containerID")
    before = eventually(started, "a running container")
    kept = kubectl("get", "cm", "kept", "-o", "yaml")
    assert site.program is not None
    assert site.program.stop(number) == 0
    assert site.workload()  # containers outlive the program that manages them
    site.start()
    assert kubectl("get", "cm", "kept", "-o", "yaml") == kept
    assert started() == before
    assert "Traceback" not in site.log()


def test_log_formats(new_site: Callable[..., Site]) -> None:
    site = new_site("--log-format", "json")
    site.start()
    entries: list[Any] = [json.loads(line) for line in site.log().splitlines()]
    assert {"ts", "level", "logger", "msg"} <= set(entries[0])
    assert any(one["level"] == "warning" and "nothing isolates them" in one["msg"] for one in entries)


def test_nothing_is_left_open_when_modules_stop(tmp_path: Path) -> None:
    """Roles run twice in one process leave no thread, task or file behind."""
    script = Path(__file__).with_name("e2e_leaks.py")
    command = [sys.executable, "-X", "dev", "-W", "error", str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.strip().endswith("nothing is left")
