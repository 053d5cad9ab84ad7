"""The first minutes with a device, as users have them: ``edgesite up --demo``, kubectl, mosquitto_sub, ``edgesite device watch``."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e_site import PROGRAM, Kubectl, Program, Site, eventually, free_port

pytestmark = pytest.mark.timeout(240)
TURN = '[{"op":"replace","path":"/spec/properties/0/desired/value","value":"23"}]'


@pytest.fixture(scope="module")
def mqtt_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, mqtt_port: int) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("demo")
    made = Site(folder, "--demo", "--set", f"edge.modules.eventBus.mqttServerInternal=tcp://127.0.0.1:{mqtt_port}")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def kubectl(site: Site) -> Kubectl:
    return site.kubectl()


@pytest.fixture
def watch(site: Site, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    with ExitStack() as stack:

        def start(*arguments: str) -> Program:
            made = Program(tmp_path / "watch.log", "device", "watch", "--data-dir", str(site.data), *arguments)
            stack.callback(_end, made)
            return made

        yield start


def _end(program: Program) -> None:
    program.close()
    assert program.process.stdout is not None
    program.process.stdout.close()


def row(kubectl: Kubectl) -> list[str]:
    """Name, model, node, state, desired, reported of the thermostat; cells that are empty are left out by kubectl."""
    return [*kubectl("get", "devices", "--no-headers").split(), *[""] * 6][:6]


def test_columns_show_it_and_a_patch_turns_it(site: Site, kubectl: Kubectl, mqtt_port: int) -> None:
    eventually(lambda: "heating=" in row(kubectl)[5], "the first reports")
    assert kubectl("get", "devices").split()[:7] == ["NAME", "MODEL", "NODE", "STATE", "DESIRED", "REPORTED", "AGE"]
    assert row(kubectl)[:5] == ["thermostat", "thermostat", site.node, "online", "target=21"]
    command = ["mosquitto_sub", "-p", str(mqtt_port), "-v", "-t", "$hw/events/#", "-W", "20"]
    heard = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert heard.stdout is not None
        assert heard.stdout.readline().startswith("$hw/events/device/thermostat/twin/update/")
        refused = kubectl.fails("patch", "device", "thermostat", "--type=json", "-p", TURN.replace("23", "99"))
        assert "spec.properties[0].desired.value" in refused
        kubectl("patch", "device", "thermostat", "--type=json", "-p", TURN)
        assert any('"delta":{"target":"23"}' in line for line in heard.stdout)
    finally:
        heard.kill()
        heard.communicate()
    eventually(lambda: "target=23" in row(kubectl)[5], "the thermostat's answer")


def test_a_watch_in_a_pipe_is_a_line_for_each_change(
    site: Site, kubectl: Kubectl, watch: Callable[..., Program]
) -> None:
    running = watch("thermostat")
    assert re.fullmatch(r"\S+Z thermostat temperature reported [\d.]+", running.wait_line("temperature reported"))
    other = watch("thermostat", "-o", "json", "--count", "3")
    lines = [json.loads(line) for line in other.process.communicate(timeout=60)[0].splitlines()]
    assert other.process.returncode == 0
    assert (len(lines), lines[0]["device"], {one["what"] for one in lines} <= {"state", "desired", "reported"}) == (
        3,
        "thermostat",
        True,
    )
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 130


def test_a_watch_goes_on_when_the_site_comes_back_and_ends_with_the_device(
    site: Site, kubectl: Kubectl, watch: Callable[..., Program]
) -> None:
    running = watch("thermostat")
    running.wait_line("thermostat target desired")
    wanted = row(kubectl)[4]
    site.kill()
    site.start()
    assert row(kubectl)[4] == wanted  # a start does not turn it back
    running.wait_line("temperature reported")
    kubectl("delete", "device", "thermostat")
    assert running.process.wait(60) == 1
    assert "device default/thermostat is gone" in running.log.read_text()
    site.stop()
    site.start()
    eventually(lambda: row(kubectl)[:1] == ["thermostat"], "the thermostat of the next start")


def test_a_terminal_gets_a_picture_that_stays_in_its_place(site: Site) -> None:
    leader, follower = pty.openpty()
    argv = [str(PROGRAM), "device", "watch", "thermostat", "--data-dir", str(site.data)]
    process = subprocess.Popen(argv, stdout=follower, stdin=subprocess.DEVNULL, start_new_session=True)
    os.close(follower)
    seen = b""
    try:
        while not re.search(rb"\x1b\[\d+A.*temperature .*[\xe2].*", seen, re.DOTALL):
            seen += os.read(leader, 4096)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()
            os.close(leader)
    assert b"PROPERTY" in seen
    assert b"Ctrl-C ends." in seen


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nobody",), 1, "there is no device default/nobody"),
        (("thermostat", "-n", "elsewhere"), 1, "there is no device elsewhere/thermostat"),
        (("Bad_Name",), 2, "NAME 'Bad_Name'"),
        (("thermostat", "--count", "-1"), 2, "--count -1"),
        (("thermostat", "--kubeconfig", "/nowhere"), 1, "/nowhere"),
    ],
)
def test_what_cannot_be_watched_is_said(site: Site, arguments: tuple[str, ...], code: int, said: str) -> None:
    argv = [str(PROGRAM), "device", "watch", "--data-dir", str(site.data), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
