"""``edgesite plugins``: list, install, remove; what this program offers to plugins."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from edgesite.cli.errors import UsageError
from edgesite.hookspecs import ABI, Command
from edgesite.runtime.plugins import PLUGINS_DIR, plugins_dir

__all__ = ["COMMAND"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(metavar="ACTION", title="actions")
    _action(actions, "list", "what was loaded, from where, and what was refused (without an action, this)")
    install = _action(actions, "install", "install a plugin's wheel, and the wheels that it needs", output=False)
    install.add_argument("wheels", metavar="FILE.whl", nargs="+", type=Path, help="the plugin's wheel first")
    remove = _action(actions, "remove", "take plugins away that were installed here", output=False)
    remove.add_argument("names", metavar="NAME", nargs="+")
    for one in (install, remove):
        one.add_argument("--dir", metavar="DIR", type=Path, help=f"folder of plugins (default {PLUGINS_DIR})")
    _action(actions, "abi", "what this program offers to plugins: ABI, Python, distributions", output=True)
    check = _action(actions, "check", "hold a plugin to what the host expects of it", output=False)
    check.add_argument(
        "targets", metavar="PLUGIN", nargs="+", help="name of its entry point, or package.module[:object]"
    )


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str, *, output: bool = True
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help, description=help, allow_abbrev=False)
    parser.set_defaults(action=name)
    if output:
        parser.add_argument("-o", "--output", choices=("text", "json"), default=argparse.SUPPRESS)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    action: str = arguments.action
    if action == "list":
        from edgesite.cli.plugins.listing import print_list

        return print_list(arguments.output)
    if action == "abi":
        return _print_abi(arguments.output)
    if action == "check":
        from edgesite.cli.plugins.conformance import check

        return check(arguments.targets)
    folder = _folder(arguments.dir)
    return _install(folder, arguments.wheels) if action == "install" else _remove(folder, arguments.names)


def _folder(given: Path | None) -> Path:
    """Where plugins are installed. Raises UsageError where this program would not look for them."""
    folder = given or plugins_dir()
    if folder is None:
        raise UsageError(
            "this program runs from Python's own packages: install plugins with pip,"
            " or name a folder by --dir and in EDGESITE_PLUGINS_DIR"
        )
    return folder.absolute()


def _install(folder: Path, wheels: list[Path]) -> int:
    from edgesite.cli.plugins.fit import Misfit
    from edgesite.cli.plugins.folder import install
    from edgesite.cli.plugins.wheelfile import BadWheel

    try:
        name, version = install(folder, wheels)
    except (BadWheel, Misfit, OSError) as exc:
        print(f"edgesite: nothing is installed: {exc}", file=sys.stderr)
        return 1
    print(f"installed {name} {version} in {folder}; processes that run load it when they are restarted")
    if folder != (plugins_dir() or Path()).absolute():
        print(f"edgesite: plugins are looked for there if EDGESITE_PLUGINS_DIR={folder}", file=sys.stderr)
    return 0


def _remove(folder: Path, names: list[str]) -> int:
    from edgesite.cli.plugins.folder import remove

    code = 0
    for name in names:
        try:
            remove(folder, name)
        except (LookupError, OSError) as exc:
            print(f"edgesite: {exc}", file=sys.stderr)
            code = 1
        else:
            print(f"removed {name}; processes that run have it until they are restarted")
    return code


def _print_abi(output: str) -> int:
    from packaging.tags import sys_tags

    import edgesite
    from edgesite.cli.plugins.fit import abi_text, bundled

    facts = {
        "edgesite": edgesite.__version__,
        "abi": ABI,
        "requirement": abi_text(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "frozen": bool(getattr(sys, "frozen", False)),
        "folder": str(plugins_dir() or ""),
        "tags": [str(one) for one in sys_tags()],
        "distributions": dict(sorted(bundled().items())),
    }
    if output == "json":
        print(json.dumps(facts, indent=2))
        return 0
    tags, distributions = facts.pop("tags"), facts.pop("distributions")
    assert isinstance(tags, list)
    assert isinstance(distributions, dict)
    for name, value in {**facts, "tags": f"{tags[0]} and {len(tags) - 1} more general ones"}.items():
        print(f"{name + ':':<15}{value}")
    print(f"distributions: {os.linesep.join(f'{name} {version}' for name, version in distributions.items())}")
    return 0


COMMAND = Command("plugins", "List, install, remove and check plugins.", _configure, _run)
