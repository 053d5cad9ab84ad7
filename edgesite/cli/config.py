"""``edgesite config``: print defaults, check a file, convert an old one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgesite.cli.errors import UsageError
from edgesite.hookspecs import Command
from edgesite.runtime.plugins import PluginHost, discover

__all__ = ["COMMAND"]

_KINDS = {"site": "EdgeSite", "cloud": "CloudCore", "edge": "EdgeCore"}


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("default", "min", "check", "convert"))
    parser.add_argument(
        "target", metavar="site|cloud|edge|FILE", help="a kind for default and min, a file for check and convert"
    )
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="sets")


def _run(arguments: argparse.Namespace) -> int:
    from edgesite.runtime.config.validate import Problem, Request, defaults, validate

    if arguments.action in ("default", "min"):
        kind = _KINDS.get(arguments.target)
        if kind is None:
            raise UsageError(f"{arguments.target!r} is none of {', '.join(_KINDS)}")
        sys.stdout.write(defaults(kind, minimal=arguments.action == "min"))
        return 0
    sections = [(one.role, one.path, one.model) for one in PluginHost(discover()).config_sections()]
    kind = _kind_of(Path(arguments.target))
    try:
        values, warnings = validate(Request(kind=kind, file=arguments.target, sets=arguments.sets, sections=sections))
    except Problem as exc:
        raise UsageError(exc.lines) from None
    for line in warnings:
        print(f"edgesite: warning: {line}", file=sys.stderr)
    if arguments.action == "check":
        print(f"{arguments.target}: a valid {kind}")
        return 0
    import yaml

    shown = values if kind == "EdgeSite" else values["cloud" if kind == "CloudCore" else "edge"]
    yaml.safe_dump(shown, sys.stdout, sort_keys=True)
    return 0


def _kind_of(path: Path) -> str:
    from edgesite.runtime.config.yamlfile import BadFile, parse

    try:
        values, _ = parse(path.read_text(), str(path))
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from None
    except (BadFile, UnicodeDecodeError) as exc:
        raise UsageError(str(exc)) from None
    kind = values.get("kind")
    if kind not in _KINDS.values():
        raise UsageError(f"{path}: kind must be one of {', '.join(_KINDS.values())}, it is {kind!r}")
    return str(kind)


COMMAND = Command("config", "Print, check or convert configuration files.", _configure, _run)
