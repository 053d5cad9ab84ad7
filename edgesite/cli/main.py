"""The program's entry: picks the command by the first argument or by the name that the program was started by.

Exit codes  0 clean stop or done; 2 bad usage or configuration; 1 anything else.
"""

from __future__ import annotations

import argparse
import importlib
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import edgesite
from edgesite.cli.errors import UsageError

if TYPE_CHECKING:
    from edgesite.hookspecs import Command

__all__ = ["BUILT_IN", "main"]

#: Built-in subcommands: name → module with ``COMMAND``. Imported only when used.
BUILT_IN: Final[Mapping[str, str]] = {
    "up": "edgesite.cli.up",
    "cloud": "edgesite.cli.cloud",
    "edge": "edgesite.cli.edge",
    "token": "edgesite.cli.token",
    "plugins": "edgesite.cli.plugins",
    "config": "edgesite.cli.config",
    "device": "edgesite.cli.device",
    "edgemark": "edgesite.cli.edgemark",
    "mapper": "edgesite.cli.mapper",
}
_SUMMARY: Final[Mapping[str, str]] = {
    "up": "run a whole site, both roles in one process",
    "cloud": "run the cloud role (alias cloudcore)",
    "edge": "run the edge role (alias edgecore)",
    "token": "print the token that an edge joins with",
    "plugins": "list plugins, loaded and refused",
    "config": "print, check or convert configuration files",
    "device": "show a device's values as they change",
    "keadm": "make this host a cloud or an edge, or undo that (init, join, reset, gettoken)",
    "edgemark": "load a cloud role with hollow edge nodes and measure it",
    "mapper": "write the project of a new mapper (mapper new NAME --protocol P)",
}
_ALIASES: Final[Mapping[str, str]] = {
    "cloudcore": "cloud",
    "edgecore": "edge",
    "keadm": "keadm",
    "iptablesmanager": "iptablesmanager",
    "iptables-manager": "iptablesmanager",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--internal"]:  # a frozen program runs its own helper processes this way
        return _internal(arguments[1:])
    started_as = os.path.basename(sys.argv[0])
    if argv is None and started_as in _ALIASES:
        arguments.insert(0, started_as)
    try:
        return _dispatch(arguments)
    except UsageError as exc:
        for line in exc.lines:
            print(f"edgesite: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:  # what the machine refuses before anything runs
        print(f"edgesite: {exc}", file=sys.stderr)
        return 1


def _dispatch(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("", "-h", "--help", "help"):
        _print_help()
        return 0 if name else 2
    if name in ("version", "--version"):
        print(f"KubeEdge v1.12.7-edgesite.{edgesite.__version__}")
        return 0
    if name == "keadm":  # reads its arguments as its users know it, and has exit codes of its own
        from edgesite.cli.keadm.command import main as keadm

        return keadm(arguments[1:])
    command = _find(_ALIASES.get(name, name))
    if command is None:
        raise UsageError(f"there is no command {name!r}; edgesite --help lists them")
    label = name if name in _ALIASES and os.path.basename(sys.argv[0]) == name else f"edgesite {name}"
    parser = argparse.ArgumentParser(prog=label, description=command.help, allow_abbrev=False)
    parser.set_defaults(started_as=name)
    command.configure(parser)
    return command.run(parser.parse_args(arguments[1:]))


def _find(name: str) -> Command | None:
    if module := BUILT_IN.get(name):
        command: Command = importlib.import_module(module).COMMAND
        return command
    from edgesite.runtime.plugins import PluginHost, discover

    return next((one for one in PluginHost(discover()).commands() if one.name == name), None)


def _print_help() -> None:
    from edgesite.runtime.plugins import PluginHost, discover

    print(
        "usage: edgesite COMMAND [options]\n\nKubeEdge as one program: a cloud role and an edge role, together or apart.\n"
    )
    rows = dict(_SUMMARY) | {
        one.name: one.help for one in PluginHost(discover()).commands() if one.name not in BUILT_IN
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"  {name:<{width}}  {text}")
    print(f"  {'version':<{width}}  print the version\n\nedgesite COMMAND --help tells of one.")


def _internal(arguments: Sequence[str]) -> int:
    module, *rest = arguments
    if not module.startswith("edgesite."):
        return 2
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__")
    return 0
