"""``keadm gettoken``: prints the token that edges join with, without a line end, as scripts take it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from edgesite.cli.keadm.apiaccess import find_kubeconfig, make_token, read_token
from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.cli.keadm.command import Tools

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kube-config",
        metavar="FILE",
        default="",
        help="kubeconfig of the API (default: of this host's cloud, else root's)",
    )
    parser.add_argument(
        "--node", metavar="NAME", default="", help="another token, for this node alone, which may exist already"
    )


def run(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError."""
    try:
        kubeconfig = find_kubeconfig(tools.host, arguments.kube_config)
        if arguments.kube_config and str(kubeconfig) != arguments.kube_config:
            tools.progress.warn(f"there is no {arguments.kube_config}: {kubeconfig} of this host's cloud is used")
        token = make_token(kubeconfig, arguments.node) if arguments.node else read_token(kubeconfig)
    except KeadmError as exc:
        raise KeadmError(f"failed to get token, err is {exc}") from None
    sys.stdout.write(token)
