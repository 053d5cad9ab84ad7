"""The conformance kit passes our example, and names what is wrong with plugins that are not well."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgesite.testing.pluginkit import examine

PROJECT = Path(__file__).resolve().parents[3]
HEAD = "from edgesite.hookspecs import Command, ConfigSection, impl\n"
MODULE = """
class Made:
    name = "made"
    roles = frozenset({{"edge"}})
    needs = frozenset({needs})
    section = ""
    def enabled(self, settings):
        return True
    async def run(self, ctx):
        {run}
@impl
def edgesite_modules():
    return [Made]
"""
WAITS = "await ctx.clock.sleep(1e9)"
BAD = {
    "no-hook": ("value = 1\n", "it implements no hook"),
    "misspelt": ("@impl\ndef edgesite_modlues():\n    return []\n", "unknown hook 'edgesite_modlues'"),
    "raises": ("@impl\ndef edgesite_modules():\n    raise RuntimeError('my own trouble')\n", "my own trouble"),
    "taken": (
        "@impl\ndef edgesite_commands():\n    return [Command('up', 'mine', print, print)]\n",
        "up is a command of edgesite",
    ),
    "no-model": (
        "@impl\ndef edgesite_config_sections():\n    return [ConfigSection('edge', 'modules.x', 'json:loads')]\n",
        "json:loads is no class",
    ),
    "needs": (MODULE.format(needs='{"nobody"}', run=WAITS), "made needs nobody"),
}
LIVES = {
    "crashes": ("ctx.ready(); raise RuntimeError('in the middle')", "made crashed: RuntimeError: in the middle"),
    "stray-task": (f"import asyncio; asyncio.get_running_loop().create_task(ctx.clock.sleep(60)); ctx.ready(); {WAITS}", "a task goes on"),
    "open-files": (f"self.kept.append(open('/dev/null')); ctx.ready(); {WAITS}", "an open file or socket more"),
}  # fmt: skip


def problems(name: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, life: bool) -> list[str]:
    module = f"bad_{name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(HEAD + text)
    monkeypatch.syspath_prepend(str(folder))
    return [one.problem for one in examine(module, life=life) if one.problem]


@pytest.mark.parametrize("name", BAD)
def test_what_a_hook_does_wrong_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, said = BAD[name]
    found = problems(name, text, tmp_path, monkeypatch, life=False)
    assert any(said in one for one in found), found


@pytest.mark.parametrize("name", LIVES)
def test_what_a_module_leaves_behind_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, said = LIVES[name]
    text = textwrap.dedent(MODULE).format(needs="", run=run).replace("class Made:\n", "class Made:\n    kept = []\n")
    found = problems(name, text, tmp_path, monkeypatch, life=True)
    assert any(said in one for one in found), found


def test_the_example_passes_as_tests_of_a_vendor() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "edgesite.testing.pluginkit.pytest_plugin",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--edgesite-plugin", "edgesite_example.plugin", "--rootdir", "/tmp", "-c", "/dev/null", "tests"],
        cwd=PROJECT / "plugins" / "edgesite-example",
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 passed" in done.stdout
