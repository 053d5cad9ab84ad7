"""``keadm config images list``: what the images of KubeEdge are called.

A host with our packages pulls none of them but the sandbox's; lists for registries and mirrors are made from this.

Source  KubeEdge v1.12.7, keadm/cmd/keadm/app/cmd/util/image (names).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.parser import KeadmParser, add_unused

if TYPE_CHECKING:
    from edgesite.cli.keadm.command import Tools

__all__ = ["configure", "run"]

_LATEST: Final = "v1.12.7"
_CLOUD: Final = ("admission", "cloudcore", "controller-manager", "iptables-manager")
_EDGE: Final = ("eclipse-mosquitto:1.6.15", "installation-package", "pause:3.1")


def configure(parser: argparse.ArgumentParser) -> None:
    groups = parser.add_subparsers(parser_class=KeadmParser, metavar="images", required=True)
    images = groups.add_parser("images", help="images of KubeEdge", prog="keadm config images")
    actions = images.add_subparsers(parser_class=KeadmParser, metavar="list", required=True)
    listing = actions.add_parser("list", help="print their names", prog="keadm config images list")
    listing.add_argument(
        "--kubeedge-version", metavar="VERSION", default="", help=f"tag of the images (default {_LATEST})"
    )
    listing.add_argument(
        "--image-repository", metavar="NAME", default="kubeedge", help="put before all names (default kubeedge)"
    )
    listing.add_argument("--part", metavar="cloud|edge", default="", help="only what one side needs")
    add_unused(
        listing, [("--runtimetype -r", "nothing is pulled"), ("--remote-runtime-endpoint -p", "nothing is pulled")]
    )


def run(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError."""
    if arguments.part not in ("", "cloud", "edge"):
        raise KeadmError(f"--part: {arguments.part!r} is neither cloud nor edge")
    version = arguments.kubeedge_version or _LATEST
    version = version if version.startswith("v") else f"v{version}"
    names = [*(_CLOUD if arguments.part != "edge" else ()), *(_EDGE if arguments.part != "cloud" else ())]
    for name in names:
        tools.progress.say(f"{arguments.image_repository.rstrip('/')}/{name if ':' in name else f'{name}:{version}'}")
