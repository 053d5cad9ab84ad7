"""``edgesite device watch NAME``: what a device shall be and what it reports, live.

Exit codes  0 after ``--count`` changes; 1 no such device, it is gone, or the API cannot be reached at the start; 2 bad usage; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anyio

from edgesite.cli.errors import UsageError
from edgesite.hookspecs import Command
from edgesite.runtime.paths import default_data_dir

__all__ = ["COMMAND"]


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="watch", required=True)
    watch = actions.add_parser("watch", help="show a device's values as they change", allow_abbrev=False)
    watch.add_argument("name", metavar="NAME", help="name of the device")
    watch.add_argument("-n", "--namespace", metavar="NAME", default="default", help="its namespace (default)")
    watch.add_argument("--data-dir", metavar="DIR", type=Path, help="data folder of the cloud role on this machine")
    watch.add_argument("--kubeconfig", metavar="FILE", type=Path, help="reach the API by this file instead")
    watch.add_argument("--count", metavar="N", type=int, default=0, help="end after this many changes")
    watch.add_argument("-o", "--output", choices=("text", "json"), help="lines in a pipe, a picture on a terminal")


def _run(arguments: argparse.Namespace) -> int:
    from edgesite.kube.names import dns1123_subdomain_problems

    for option, name in (("NAME", arguments.name), ("--namespace", arguments.namespace)):
        if problems := dns1123_subdomain_problems(name):
            raise UsageError(f"{option} {name!r}: {problems[0]}")
    if arguments.count < 0:
        raise UsageError(f"--count {arguments.count}: must not be negative")
    from edgesite.cli.device.screen import Lines, Screen
    from edgesite.cli.device.watch import DeviceGone, watch

    kubeconfig = arguments.kubeconfig or (arguments.data_dir or default_data_dir()) / "admin.kubeconfig"
    live = arguments.output is None and sys.stdout.isatty()
    view = Screen(sys.stdout) if live else Lines(sys.stdout, as_json=arguments.output == "json")
    try:
        anyio.run(watch, kubeconfig, arguments.namespace, arguments.name, view, arguments.count)
    except DeviceGone as exc:
        print(f"edgesite: {exc}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except (OSError, TimeoutError, LookupError, ValueError) as exc:
        why = exc if str(exc) else "the API did not answer in time"
        print(f"edgesite: {why} (kubeconfig {kubeconfig})", file=sys.stderr)
        return 1
    return 0


COMMAND = Command("device", "Show devices: edgesite device watch NAME.", _configure, _run)
