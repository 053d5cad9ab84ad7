"""``keadm version``: the version of this program, in the words of KubeEdge's."""

from __future__ import annotations

import argparse
import json
import platform
from typing import TYPE_CHECKING, Final

import edgesite
from edgesite.cli.keadm.failure import KeadmError
from edgesite.net.machine import architecture

if TYPE_CHECKING:
    from edgesite.cli.keadm.command import Tools

__all__ = ["VERSION", "configure", "run"]

VERSION: Final = f"v1.12.7-edgesite.{edgesite.__version__}"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FORMAT", default="", help="yaml, json or short")


def run(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError."""
    facts = {
        "major": "1",
        "minor": "12",
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{architecture()}",
    }
    match arguments.output:
        case "":
            print(f"version: {VERSION}")
        case "short":
            print(VERSION)
        case "json":
            print(json.dumps(facts, indent=2))
        case "yaml":
            import yaml

            print(yaml.safe_dump(facts), end="")
        case other:
            raise KeadmError(f"invalid output format: {other}")
