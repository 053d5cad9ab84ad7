"""The packages as users have them: RPMs through dnf, debs through dpkg, on a machine that systemd runs."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from e2e_bundle import PROJECT
from e2e_machine import Machine
from e2e_packages import NEWER, OLDER, Packages, dnf, of_openeuler, rpms
from e2e_site import eventually
from peers import kubectl

pytestmark = pytest.mark.timeout(600)  # the first of them freezes the program

CONFIGURATION = "/etc/kubeedge/config/edgesite.yaml"
UNITS = ("cloudcore", "edgecore", "edgesite")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "works"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "host", "command": ["sleep", "987654"]}],
    },
}
#: A plugin that gets stuck once when it is told to.
STUCK = {
    "stuck-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n",
    "stuck-1.0.dist-info/entry_points.txt": "[edgesite.plugins]\nstuck = stuck\n",
    "stuck.py": """
import os, threading, time
from edgesite.hookspecs import impl

def told(what):
    try:
        os.unlink(f"/run/stuck-{what}")
    except FileNotFoundError:
        return False
    return True

class Stuck:
    name, roles, needs, section = "stuck", frozenset({"edge"}), frozenset(), ""

    def enabled(self, settings):
        return True

    async def run(self, ctx):
        ctx.ready()
        worker = ctx.threads.worker("stuck")
        while not told("thread"):
            if told("loop"):
                time.sleep(3600)
            await ctx.clock.sleep(0.2)
        await worker.submit(threading.Event().wait)

@impl
def edgesite_modules(settings):
    return [Stuck]
""",
}
#: What our packages may ask of openEuler 22.03 LTS and later: packages there, and features of rpm 4.17.
OF_OPENEULER = frozenset({"/bin/sh", "ca-certificates", "mosquitto", "systemd"})
OF_RPM = frozenset(
    f"rpmlib({one})" for one in ("CompressedFileNames", "FileDigests", "PayloadFilesHavePrefix", "PayloadIsXz")
)
#: So that a test need not wait a minute.
QUICK = "[Service]\nWatchdogSec=4\nTimeoutAbortSec=5\nRestartSec=1\n"


@pytest.fixture(scope="module")
def new_machine(tmp_path_factory: pytest.TempPathFactory, packages: Packages) -> Iterator[Callable[[], Machine]]:
    with ExitStack() as stack:

        def make() -> Machine:
            binds = {
                packages.older: "/packages/older",
                packages.newer: "/packages/newer",
                packages.debs: "/packages/debs",
                kubectl("1.32"): "/usr/local/bin/kubectl",
            }
            return stack.enter_context(closing(Machine(tmp_path_factory.mktemp("machine"), binds)))

        yield make


@pytest.fixture(scope="module")
def debian(new_machine: Callable[[], Machine]) -> Machine:
    """A machine with the debs and a site that runs a pod."""
    machine = new_machine()
    machine.boot()
    machine("sh", "-c", "exec dpkg -i /packages/debs/*.deb")
    machine("systemctl", "enable", "--now", "edgesite")
    run_pod(machine)
    return machine


def kube(machine: Machine, *arguments: str, stdin: str | None = None) -> str:
    return machine("kubectl", "--kubeconfig=/var/lib/kubeedge/admin.kubeconfig", *arguments, stdin=stdin)


def node_ready(machine: Machine) -> None:
    eventually(
        lambda: (
            "True"
            in kube(machine, "get", "node", "edge1", "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')
        ),
        "Ready",
    )


def run_pod(machine: Machine) -> None:
    kube(machine, "apply", "-f", "-", stdin=json.dumps(POD))
    kube(machine, "wait", "pod", "works", "--for=condition=Ready", "--timeout=100s")


def pod_process(machine: Machine) -> str:
    return machine("pgrep", "-fx", "sleep 987654").strip()


def main_pid(machine: Machine) -> str:
    return machine.property("edgesite", "MainPID")


def program(machine: Machine) -> str:
    return machine("readlink", f"/proc/{main_pid(machine)}/exe").strip()


def test_rpmlint_finds_nothing_that_we_have_not_answered(packages: Packages) -> None:
    answers, spec = PROJECT / "rpm" / "kubeedge.rpmlintrc", PROJECT / "rpm" / "kubeedge.spec"
    words = ["rpmlint", "--ignore-unused-rpmlintrc", "-r", answers, spec]
    done = subprocess.run([*words, *packages.older.glob("*.rpm")], capture_output=True, text=True, check=False)
    assert "0 errors, 0 warnings" in done.stdout, done.stdout


def test_two_builds_are_the_same(packages: Packages, bundle: Path, tmp_path: Path) -> None:
    rpms(tmp_path, bundle, OLDER)
    made = [path.relative_to(packages.older) for path in packages.older.rglob("*") if path.is_file()]
    assert len(made) > 6
    assert [name for name in made if (packages.older / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def asked(packages: Packages, what: str) -> list[tuple[str, str]]:
    """Each package with each of its ``--requires``, ``--provides`` … without versions."""
    found = []
    for path in packages.older.glob("*.rpm"):
        words = ["rpm", "-qp", "--qf", "%{NAME}\n", what, path]
        name, *lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        found += [(name, line.split(" ")[0]) for line in lines]
    return found


def test_the_packages_ask_only_for_what_openeuler_has(packages: Packages) -> None:
    needs = {need for what in ("--requires", "--recommends") for _, need in asked(packages, what)}
    foreign = {one for one in needs if not one.startswith("kubeedge")} - OF_OPENEULER - OF_RPM
    assert {re.sub(r"GLIBC_2\.\d+", "GLIBC", one) for one in foreign} == {"libc.so.6(GLIBC)(64bit)"}
    budget = tomllib.loads((PROJECT / "benchmarks" / "budgets.toml").read_text())["frozen"]["glibc_floor"]
    assert tuple(map(int, budget.split("."))) <= (2, 34)  # openEuler 22.03's; `make dist` keeps to the budget
    provides = asked(packages, "--provides")
    for name in ("cloudcore", "edgecore", "keadm"):  # by which openEuler's packages are installed, too
        assert (f"kubeedge-{name}", name) in provides


def test_the_packages_take_the_place_of_openeulers(
    new_machine: Callable[[], Machine], packages: Packages, tmp_path: Path
) -> None:
    root = new_machine().root
    dnf(root, packages, "install", "keadm", "cloudcore", "edgecore", repository=of_openeuler(tmp_path))
    config = root / "etc/kubeedge/config"
    (config / "cloudcore.yaml").write_text("kind: CloudCore\n")
    (config / "edgecore.example.yaml").write_text("# changed\n")
    assert (root / "usr/local/bin/cloudcore").read_text() == "1.8\n"
    dnf(root, packages, "upgrade")
    for name in ("cloudcore", "edgecore", "keadm"):
        done = subprocess.run(["chroot", root, f"/usr/local/bin/{name}", "--help"], capture_output=True, check=False)
        assert done.stdout.startswith(f"usage: {name}".encode())
    assert (config / "cloudcore.yaml").read_text() == "kind: CloudCore\n"
    assert (config / "edgecore.example.yaml").read_text() == "# changed\n"
    assert "kind: EdgeCore" in (config / "edgecore.example.yaml.rpmnew").read_text()
    assert "kind: CloudCore" in (config / "cloudcore.example.yaml").read_text()
    assert "ExecStart=/usr/bin/edgecore" in (root / "usr/lib/systemd/system/edgecore.service").read_text()
    crds = {str(one.relative_to(root / "etc/kubeedge/crds")) for one in (root / "etc/kubeedge/crds").glob("*/*")}
    assert {"devices/devices.yaml", "reliablesyncs/objectsyncs.yaml", "rules/rules.yaml"} <= crds
    left = [root / "etc/kubeedge" / one for one in ("edgecore.service", "tools/certgen.sh", "crds/router")]
    assert not any(one.exists() for one in (*left, root / "usr/local/bin/admission"))
    licence = root / "usr/share/licenses/kubeedge-common/LICENSE"
    assert "Apache License" in licence.read_text()


def test_rpms_through_their_life(new_machine: Callable[[], Machine], packages: Packages) -> None:
    """Install with dnf, run, upgrade, downgrade, remove, install again: the pod runs on, the configuration stays."""
    machine = new_machine()
    dnf(machine.root, packages, "install", "kubeedge")
    machine.boot()
    assert machine("cloudcore", "--version").startswith("KubeEdge v1.12.7")
    assert [machine.run("systemctl", "is-enabled", unit).stdout.strip() for unit in UNITS] == ["disabled"] * 3
    machine("sh", "-c", f"echo '# ours' >> {CONFIGURATION}")
    machine("systemctl", "enable", "--now", "edgesite")
    node_ready(machine)
    run_pod(machine)
    process = pod_process(machine)

    for folder, release, flags in (("newer", NEWER, ""), ("older", OLDER, "--oldpackage ")):
        before = main_pid(machine)
        machine("sh", "-c", f"exec rpm -U {flags}/packages/{folder}/*.rpm")
        assert main_pid(machine) != before
        assert f"-{release}/" in program(machine)
        assert len(machine("sh", "-c", "ls -d /usr/lib/kubeedge/edgesite-*").split()) == 1
        node_ready(machine)
        assert pod_process(machine) == process
        assert kube(machine, "exec", "works", "--", "echo", "hello").strip() == "hello"
    assert machine("cat", CONFIGURATION).endswith("# ours\n")
    assert machine("systemctl", "is-enabled", "edgesite").strip() == "enabled"

    machine("sh", "-c", "exec rpm -e $(rpm -qa | grep ^kubeedge)")
    assert machine.run("systemctl", "is-active", "edgesite").stdout.strip() == "inactive"
    assert machine.run("sh", "-c", "ls -d /usr/lib/kubeedge/edgesite-* /usr/bin/edgesite").stdout == ""
    assert machine.run("find", "/etc/systemd/system", "-name", "edgesite*").stdout == ""
    assert pod_process(machine) == process

    machine("mv", f"{CONFIGURATION}.rpmsave", CONFIGURATION)
    machine("sh", "-c", "exec rpm -i /packages/newer/*.rpm")
    assert machine("cat", CONFIGURATION).endswith("# ours\n")
    machine("systemctl", "start", "edgesite")
    node_ready(machine)
    kube(machine, "wait", "pod", "works", "--for=condition=Ready", "--timeout=100s")
    assert pod_process(machine) == process


def test_each_deb_says_whose_it_is(debian: Machine) -> None:
    for name in ("kubeedge", "kubeedge-common", "kubeedge-edgecore"):
        text = debian("cat", f"/usr/share/doc/{name}/copyright")
        assert text.startswith("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n")
        assert "/usr/share/common-licenses/Apache-2.0" in text
        if name == "kubeedge-common":
            (folder,) = re.findall(r"/usr/lib/kubeedge/edgesite-\S+/_internal", text)
            debian("test", "-d", folder)


def test_units_are_as_systemd_wants_them(debian: Machine) -> None:
    done = debian.run("systemd-analyze", "verify", *(f"/lib/systemd/system/{unit}.service" for unit in UNITS))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_cloud_role_may_do_next_to_nothing(debian: Machine) -> None:
    assert exposure(debian, "cloudcore") <= 1.3


def test_the_edge_role_may_less_where_every_pod_is_a_container(debian: Machine) -> None:
    folder = "/run/systemd/system/edgecore.service.d"
    debian("mkdir", folder)
    debian("cp", "/usr/share/doc/kubeedge/edgecore-containers.conf", folder)
    debian("systemctl", "daemon-reload")
    assert exposure(debian, "edgecore") <= 6.2
    debian("rm", "-r", folder)
    debian("systemctl", "daemon-reload")


def exposure(machine: Machine, unit: str) -> float:
    """How much systemd says the unit may do, from 0 to 10."""
    printed = machine("systemd-analyze", "security", "--no-pager", f"{unit}.service")
    found = re.search(rf"level for {unit}.service: ([\d.]+)", printed)
    assert found is not None
    return float(found[1])


def test_systemctl_status_tells_how_the_site_is(debian: Machine) -> None:
    assert re.fullmatch(
        r"cloud role and edge role of node edge1: \d+ modules ready", debian.property("edgesite", "StatusText")
    )


def test_the_journal_has_fields(debian: Machine) -> None:
    lines = debian("journalctl", "--unit=edgesite", "MODULE=edged", "NODE=edge1", "--output=json").splitlines()
    entry = json.loads(lines[0])
    assert (entry["SYSLOG_IDENTIFIER"], entry["_TRANSPORT"]) == ("edgesite", "journal")
    assert entry["LOGGER"].startswith("edgesite.")
    assert debian("journalctl", "--unit=edgesite", "MODULE=edged", "--priority=warning", "--output=cat").startswith(
        "edged: "
    )


def test_reload_takes_what_can_be_taken_and_names_the_rest(debian: Machine) -> None:
    before = main_pid(debian)
    good = debian("cat", CONFIGURATION)
    debian(
        "tee",
        CONFIGURATION,
        stdin=f"{good}cloud: {{modules: {{cloudHub: {{nodeLimit: 7, https: {{port: 7}}}}}}}}\n"
        "edge: {modules: {edged: {nodeLabels: {rack: a}}}, logging: {levels: {net: debug}}}\n",
    )
    debian("systemctl", "reload", "edgesite")
    wanted = "take effect at the next start: cloud.modules.cloudHub.https.port\n"
    eventually(lambda: wanted in debian.journal("edgesite"), "a word on the rest")
    wanted = "taken over: cloud.modules.cloudHub.nodeLimit, edge.modules.edged.nodeLabels.rack\n"
    assert wanted in debian.journal("edgesite")
    eventually(lambda: "edge1" in kube(debian, "get", "nodes", "-l", "rack=a", "-o", "name"), "the node's label")
    debian(
        "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/6443; echo no TLS at all >&3; cat <&3"
    )  # is told at this level alone
    said = ("journalctl", "MODULE=net", "PRIORITY=7", "--quiet", "--output=cat")
    eventually(lambda: "a TLS handshake failed" in debian.run(*said).stdout, "a debug line")
    debian("tee", CONFIGURATION, stdin="kind: [")
    debian("systemctl", "reload", "edgesite")
    eventually(lambda: "the configuration is kept as it was" in debian.journal("edgesite"), "a refusal")
    debian("tee", CONFIGURATION, stdin=good)
    debian("systemctl", "reload", "edgesite")
    assert main_pid(debian) == before


@pytest.fixture
def impatient(debian: Machine) -> None:
    """Of the units, for those who start them after this."""
    debian("mkdir", "-p", "/run/systemd/system/edgesite.service.d")
    debian("tee", "/run/systemd/system/edgesite.service.d/quick.conf", stdin=QUICK)
    debian("systemctl", "daemon-reload")


@pytest.mark.usefixtures("impatient")
def test_a_process_that_stands_still_is_replaced_and_the_pod_runs_on(debian: Machine) -> None:
    debian("systemctl", "restart", "edgesite")
    process, stuck = pod_process(debian), main_pid(debian)
    debian("kill", "-STOP", stuck)
    eventually(lambda: main_pid(debian) not in (stuck, "0"), "another process")
    eventually(lambda: debian.property("edgesite", "ActiveState") == "active", "the site")
    log = debian.journal("edgesite")
    assert "Watchdog timeout" in log
    assert "most recent call first" in log  # the stacks of all threads
    node_ready(debian)
    assert pod_process(debian) == process


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ["thread", "loop"])
def test_what_stands_still_inside_is_replaced_too(debian: Machine, what: str) -> None:
    """A thread that a module waits for in vain, and a module that holds up the event loop."""
    for name, text in STUCK.items():
        debian("mkdir", "-p", f"/usr/lib/kubeedge/plugins/{Path(name).parent}")
        debian("tee", f"/usr/lib/kubeedge/plugins/{name}", stdin=text)
    debian("systemctl", "restart", "edgesite")
    node_ready(debian)
    process, stuck = pod_process(debian), main_pid(debian)
    debian("touch", f"/run/stuck-{what}")
    eventually(lambda: main_pid(debian) not in (stuck, "0"), "another process")
    log = debian.journal("edgesite", f"_PID={stuck}")
    if what == "thread":
        assert "systemd is not told that this process is alive: threads: the thread stuck has stood still" in log
    eventually(lambda: debian.property("edgesite", "ActiveState") == "active", "the site")
    node_ready(debian)
    assert pod_process(debian) == process
    debian("rm", "-r", *sorted({f"/usr/lib/kubeedge/plugins/{Path(one).parts[0]}" for one in STUCK}))


def test_a_configuration_that_nobody_can_run_with_is_not_tried_for_ever(debian: Machine) -> None:
    good = debian("cat", CONFIGURATION)
    debian("tee", CONFIGURATION, stdin="kind: EdgeSite\nnonsense: 1\n")
    assert debian.run("systemctl", "restart", "edgesite").returncode != 0
    assert debian.property("edgesite", "Result") == "exit-code"
    assert debian.property("edgesite", "ActiveState") == "failed"
    debian("tee", CONFIGURATION, stdin=good)
    debian("systemctl", "start", "edgesite")


def test_both_roles_apart_on_one_machine_and_removal(debian: Machine) -> None:
    """Last: it removes the packages."""
    folder = "/var/lib/kubeedge/cloudcore"
    debian("systemctl", "start", "edgecore")
    assert debian.property("edgecore", "ActiveState") == "inactive"  # nobody has joined it to anything yet
    debian("systemctl", "start", "cloudcore")
    assert debian.property("edgesite", "ActiveState") == "inactive"
    status = debian("cat", f"/proc/{debian.property('cloudcore', 'MainPID')}/status")
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    assert debian("stat", "-c", "%U %a", folder).split() == ["kubeedge", "700"]
    token = debian("edgesite", "token", "--data-dir", folder).strip()
    hub = f"{{httpServer: 'https://127.0.0.1:10002', token: {token}, websocket: {{server: '127.0.0.1:10000'}}}}"
    edged = "{hostnameOverride: edge2, runtime: process}"
    debian(
        "tee",
        "/etc/kubeedge/config/edgecore.yaml",
        stdin=f"kind: EdgeCore\nmodules: {{edgeHub: {hub}, edged: {edged}}}\n",
    )
    debian("systemctl", "start", "edgecore")
    ready = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    look = ("kubectl", f"--kubeconfig={folder}/admin.kubeconfig", "get", "node", "edge2", "-o", ready)
    eventually(lambda: debian.run(*look).stdout == "True", "edge2 Ready")

    debian("systemctl", "stop", "cloudcore")
    debian("systemctl", "restart", "edgecore", timeout_s=30)  # an edge that has joined starts without its cloud
    assert debian.property("edgecore", "ActiveState") == "active"

    debian("sh", "-c", "exec dpkg --remove $(dpkg-query -W -f '${Package} ' 'kubeedge*')")
    assert [debian.run("systemctl", "is-active", unit).stdout.strip() for unit in UNITS] == ["inactive"] * 3
    for kept in (folder, CONFIGURATION, "/etc/kubeedge/config/edgecore.yaml", "/var/lib/kubeedge/admin.kubeconfig"):
        debian("test", "-e", kept)
