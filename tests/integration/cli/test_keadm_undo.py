"""What keadm changes is undone: after a failure at once, after a kill between any two steps by the next command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgesite.cli.keadm.changes import Changes, changing, recover
from edgesite.cli.keadm.host import Host
from edgesite.cli.keadm.journal import PLACE, Journal
from edgesite.cli.keadm.progress import Progress
from edgesite.cli.keadm.systemd import Systemd

UNIT = "edgecore"


class Killed(BaseException):
    """The process is gone: nothing more of it runs."""


class DyingJournal(Journal):
    """Dies with its process before or after the note of one step."""

    def __init__(self, host: Host, systemd: Systemd, at: int, *, before: bool) -> None:
        super().__init__(host, systemd)
        self._at, self._before, self._count = at, before, 0

    def note(self, undo: str, target: str | Path, keep: object = ()) -> None:
        self._count += 1
        if self._count == self._at and self._before:
            raise Killed
        super().note(undo, target, keep)  # type: ignore[arg-type]
        if self._count == self._at:
            raise Killed


class Machine:
    """A root folder, and a systemctl that remembers what it was asked."""

    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []
        self.active, self.enabled = False, False
        self.fails_at = ""
        self.host = Host(root, self._run)
        self.systemd = Systemd(self.host)
        for path, text in (("/etc/kubeedge/config/edgecore.yaml", "# mine\n"), ("/var/lib/kubeedge/kept", "kept\n")):
            (file := self.host.path(path)).parent.mkdir(parents=True)
            file.write_text(text)

    def _run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.asked.append(" ".join(argv[1:]))
        if argv[1] == self.fails_at:
            return subprocess.CompletedProcess(argv, 1, "", "no luck")
        if argv[1] in ("restart", "stop"):
            self.active = argv[1] == "restart"
        if argv[1] in ("enable", "disable"):
            self.enabled = argv[1] == "enable"
        shown = {
            "is-active": "active" if self.active else "inactive",
            "is-enabled": "enabled" if self.enabled else "disabled",
        }
        return subprocess.CompletedProcess(argv, 0, shown.get(argv[1], ""), "")

    def state(self) -> dict[str, str]:
        found = {"active": str(self.active), "enabled": str(self.enabled)}
        for place, folders, names in os.walk(self.host.root):
            found |= {f"{place}/{name}": "" for name in folders}
            found |= {f"{place}/{name}": _shown(Path(place) / name) for name in names}
        return found


def _shown(file: Path) -> str:
    return f"→ {os.readlink(file)}" if file.is_symlink() else f"{file.stat().st_mode:o} {file.read_text()}"


def join(machine: Machine, changes: Changes) -> None:
    """The steps of a join, and what edgecore does meanwhile."""
    changes.folder("/var/log/kubeedge")
    changes.file("/etc/kubeedge/config/edgecore.yaml", b"modules: {}\n", 0o600)
    changes.folder("/etc/kubeedge/certs", 0o700)
    changes.made_by_program("/etc/kubeedge/certs/server.crt")
    machine.host.path("/etc/kubeedge/certs/server.crt").write_text("certificate")
    changes.link("/usr/local/bin/edgecore", Path("/opt/edgesite"))
    changes.unit(UNIT, Path("/usr/local/bin/edgecore"))
    changes.filled_by_program("/var/lib/kubeedge", "/var/lib/edged")
    changes.enable_and_start(UNIT)
    for path in ("/var/lib/kubeedge/edgecore.db", "/var/lib/edged/pods/1/volumes/x"):
        (file := machine.host.path(path)).parent.mkdir(parents=True, exist_ok=True)
        file.write_text("state")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


def steps(tmp_path: Path) -> int:
    """How many notes a whole join writes."""
    machine = Machine(tmp_path / "counting")
    journal = Journal(machine.host, machine.systemd)
    join(machine, Changes(machine.host, machine.systemd, Progress(), journal))
    return len(machine.host.path(PLACE).read_text().splitlines())


def test_a_kill_between_any_two_steps_is_undone_by_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = steps(tmp_path)
    assert count >= 12
    for at in range(1, count + 1):
        for before in (True, False):
            machine = Machine(tmp_path / f"{at}-{before}")
            start = machine.state()
            journal = DyingJournal(machine.host, machine.systemd, at, before=before)
            with pytest.raises(Killed):
                join(machine, Changes(machine.host, machine.systemd, Progress(), journal))
            recover(machine.host, machine.systemd, Progress())
            recover(machine.host, machine.systemd, Progress())  # nothing is left for another
            kept = {"/var/lib": ""}  # a folder above the journal's own
            found = {
                path: text
                for path, text in machine.state().items()
                if path.removeprefix(str(machine.host.root)) not in kept
            }
            assert found == {
                path: text for path, text in start.items() if path.removeprefix(str(machine.host.root)) not in kept
            }, (at, before)
    assert "cannot be undone" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "restart"])
def test_what_systemd_refuses_undoes_all(machine: Machine, verb: str) -> None:
    start = machine.state()
    machine.fails_at = verb
    with pytest.raises(Exception, match="no luck"), changing(machine.host, machine.systemd, Progress()) as changes:
        join(machine, changes)
    machine.fails_at = ""
    assert machine.state() == start


def test_success_leaves_no_traces_and_a_second_time_changes_nothing(machine: Machine) -> None:
    with changing(machine.host, machine.systemd, Progress()) as changes:
        join(machine, changes)
    assert not machine.host.path(PLACE).exists()
    assert not list(machine.host.root.rglob("*.before-keadm"))
    done = machine.state()
    assert (done["active"], done["enabled"]) == ("True", "True")
    with changing(machine.host, machine.systemd, Progress()) as changes:
        changes.folder("/var/log/kubeedge")
        changes.file("/etc/kubeedge/config/edgecore.yaml", b"modules: {}\n", 0o600)
        changes.unit(UNIT, Path("/usr/local/bin/edgecore"))
    assert machine.state() == done


def test_modes_do_not_depend_on_the_umask(machine: Machine) -> None:
    before = os.umask(0o077)
    try:
        with changing(machine.host, machine.systemd, Progress()) as changes:
            changes.folder("/var/log/kubeedge")
            changes.file("/etc/systemd/system/edgecore.service", b"", 0o644)
    finally:
        os.umask(before)
    for path, mode in (
        ("/var/log", 0o755),
        ("/var/log/kubeedge", 0o755),
        ("/etc/systemd/system", 0o755),
        ("/etc/systemd/system/edgecore.service", 0o644),
    ):
        assert machine.host.path(path).stat().st_mode & 0o777 == mode


def test_a_dry_run_changes_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    start = machine.state()
    with changing(machine.host, machine.systemd, Progress(dry_run=True)) as changes:
        changes.folder("/var/log/kubeedge")
        changes.file("/etc/kubeedge/config/edgecore.yaml", b"modules: {}\n", 0o600)
        changes.link("/usr/local/bin/edgecore", Path("/opt/edgesite"))
        changes.unit(UNIT, Path("/usr/local/bin/edgecore"))
        changes.filled_by_program("/var/lib/kubeedge")
        changes.enable_and_start(UNIT)
    assert machine.state() == start
    assert not [one for one in machine.asked if not one.startswith("is-")]
    assert "would write /etc/kubeedge/config/edgecore.yaml" in capsys.readouterr().out


def test_a_journal_that_was_cut_short_is_read_up_to_there(machine: Machine) -> None:
    made = machine.host.path("/etc/kubeedge/made")
    journal = Journal(machine.host, machine.systemd)
    journal.note("remove", made)
    made.write_text("x")
    with machine.host.path(PLACE).open("a") as file:
        file.write('{"undo": "rmtree", "target": "/')
    recover(machine.host, machine.systemd, Progress())
    assert not made.exists()
