"""``edgesite mapper new NAME --protocol P``: a project for a mapper, complete, with an in-memory machine where the real one goes."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgesite.cli.errors import UsageError
from edgesite.hookspecs import Command

__all__ = ["COMMAND"]


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    help = "write a project whose driver speaks to a machine in memory: put yours in its place"
    new = actions.add_parser("new", help=help, description=help, allow_abbrev=False)
    new.add_argument("name", metavar="NAME", help="of the mapper: lower-case letters, digits and '-', as furnace")
    new.add_argument("--protocol", metavar="P", help="what devices name as their protocol (default: NAME)")
    new.add_argument("--dir", metavar="DIR", type=Path, default=Path(), help="where the project's folder goes (.)")


def _run(arguments: argparse.Namespace) -> int:
    from edgesite.cli.mapper.project import BadName, Project

    try:
        project = Project(arguments.name, arguments.protocol or arguments.name)
        folder = project.write(arguments.dir)
    except (BadName, FileExistsError) as exc:
        raise UsageError(str(exc)) from None
    print(
        f"{folder}: a mapper for protocol {project.protocol}. Its driver is {folder / project.package / 'driver.py'}."
    )
    print(f"Next: cd {folder} && pip install -e .[test] && pytest")
    return 0


COMMAND = Command("mapper", "write the project of a new mapper (mapper new NAME --protocol P)", _configure, _run)
