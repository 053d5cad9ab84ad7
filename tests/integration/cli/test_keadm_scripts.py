"""Scripts before and after keadm's commands, run by real shells."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from edgesite.cli.keadm import join, reset, scripts
from edgesite.cli.keadm.command import Tools, main
from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.host import Host
from edgesite.cli.keadm.parser import KeadmParser
from edgesite.cli.keadm.progress import Progress
from edgesite.cli.keadm.systemd import Systemd

Scripted = Callable[..., argparse.Namespace]


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tools(tmp_path: Path, said: io.StringIO) -> Tools:
    host = Host(tmp_path / "host")
    return Tools(host, Systemd(host), Progress(err=said))


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    def make(**texts: str) -> argparse.Namespace:
        given = {"pre_run": "", "post_run": ""}
        for name, text in texts.items():
            given[name] = str(tmp_path / name)
            (tmp_path / name).write_text(text)
        return argparse.Namespace(**given)

    return make


def test_a_script_needs_no_rights_to_be_run_by_bash(
    scripted: Scripted, tools: Tools, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scripts.before(scripted(pre_run="[[ -n $BASH_VERSION ]] && echo told; read -r line || touch $0.done"), tools)
    assert capfd.readouterr().out == "told\n"
    assert (tmp_path / "pre_run.done").exists()  # it had nothing to read


def test_an_executable_script_is_run_by_what_it_names(scripted: Scripted, tools: Tools, tmp_path: Path) -> None:
    arguments = scripted(
        post_run="#!/usr/bin/env python3\nimport sys, pathlib\npathlib.Path(sys.argv[0] + '.done').touch()\n"
    )
    (tmp_path / "post_run").chmod(0o755)
    scripts.after(arguments, tools)
    assert (tmp_path / "post_run.done").exists()


@pytest.mark.parametrize(("text", "why"), [("exit 7", "ended with exit code 7"), ("kill -9 $$", "ended with signal 9")])
def test_a_failure_before_ends_the_command_and_one_after_is_said(
    scripted: Scripted, tools: Tools, said: io.StringIO, text: str, why: str
) -> None:
    with pytest.raises(KeadmError, match=f"--pre-run: .*/pre_run {why}"):
        scripts.before(scripted(pre_run=text), tools)
    scripts.after(scripted(post_run=text), tools)
    assert why in said.getvalue()
    assert said.getvalue().startswith("warning: --post-run: ")


def test_both_are_looked_for_before_either_runs(scripted: Scripted, tools: Tools, tmp_path: Path) -> None:
    arguments = scripted(pre_run="touch $0.done")
    arguments.post_run = str(tmp_path / "nowhere")
    with pytest.raises(KeadmError, match=r"--post-run: .*nowhere: No such file"):
        scripts.before(arguments, tools)
    assert not (tmp_path / "pre_run.done").exists()


def test_join_runs_the_first_before_it_looks_at_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "first").write_text("exit 3")
    words = ["join", "--cloudcore-ipport=192.0.2.1:10000", "--token=no-token"]
    assert main([*words, f"--pre-run={tmp_path / 'first'}", "--dry-run"]) == 1
    shown = capsys.readouterr()
    assert "would run the script" in shown.out  # not run, so that the token is what fails
    assert "token credentials are in the wrong format" in shown.err


@pytest.mark.parametrize("module", [join, reset])
def test_scripts_are_optional(module: object) -> None:
    parser = KeadmParser(prog="keadm")
    module.configure(parser)  # type: ignore[attr-defined]
    arguments = parser.parse_args([])
    assert (arguments.pre_run, arguments.post_run) == ("", "")
