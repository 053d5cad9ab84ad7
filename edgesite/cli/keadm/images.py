"""``keadm config images list`` and ``pull``: what the images of KubeEdge are called, and having them in this host's container runtime.

A host with our packages runs none of them but the sandbox's; lists for registries and mirrors are made from this.

Errors  KeadmError.
Source  KubeEdge v1.12.7, keadm/cmd/keadm/app/cmd/util/image (names).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm.containers import SOCKETS, find_runtime, pull_images
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
    actions = images.add_subparsers(parser_class=KeadmParser, metavar="list|pull", required=True, dest="action")
    listing = actions.add_parser("list", help="print their names", prog="keadm config images list")
    pulling = actions.add_parser("pull", help="have the runtime pull them", prog="keadm config images pull")
    for action in (listing, pulling):
        action.add_argument(
            "--kubeedge-version", metavar="VERSION", default="", help=f"tag of the images (default {_LATEST})"
        )
        action.add_argument(
            "--image-repository", metavar="NAME", default="kubeedge", help="put before all names (default kubeedge)"
        )
        action.add_argument("--part", metavar="cloud|edge", default="", help="only what one side needs")
    add_unused(
        listing, [("--runtimetype -r", "nothing is pulled"), ("--remote-runtime-endpoint -p", "nothing is pulled")]
    )
    pulling.add_argument("-r", "--runtimetype", metavar="TYPE", default="", help="docker (as cri-dockerd) or remote")
    pulling.add_argument(
        "-p", "--remote-runtime-endpoint", metavar="unix:///…", default="", help="socket (default: one that is there)"
    )


def run(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError."""
    if arguments.part not in ("", "cloud", "edge"):
        raise KeadmError(f"--part: {arguments.part!r} is neither cloud nor edge")
    version = arguments.kubeedge_version or _LATEST
    version = version if version.startswith("v") else f"v{version}"
    short = [*(_CLOUD if arguments.part != "edge" else ()), *(_EDGE if arguments.part != "cloud" else ())]
    tagged = [name if ":" in name else f"{name}:{version}" for name in short]
    names = [f"{arguments.image_repository.rstrip('/')}/{name}" for name in tagged]
    if arguments.action == "list":
        for name in names:
            tools.progress.say(name)
        return
    endpoint = find_runtime(tools.host, arguments.remote_runtime_endpoint, arguments.runtimetype)
    if not endpoint:
        raise KeadmError(f"no container runtime is there: looked for {', '.join(SOCKETS)}")
    pull_images(tools.host, endpoint, names, tools.progress.say)
