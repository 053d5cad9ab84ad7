"""``edgesite cloud`` and ``cloudcore``: the cloud role, on the embedded API server or on a cluster's."""

from __future__ import annotations

import argparse

from edgesite.cli import options
from edgesite.cli.ready import say_when_serving
from edgesite.context import Section
from edgesite.hookspecs import Command
from edgesite.runtime.paths import SYSTEM_DIR, cloud_defaults, local_ip
from edgesite.runtime.site import Plan

__all__ = ["COMMAND"]


def _configure(parser: argparse.ArgumentParser) -> None:
    options.add_common(parser)
    parser.add_argument(
        "--api-address", metavar="HOST:PORT", type=options.address, help="where the API listens (127.0.0.1:6443)"
    )
    parser.add_argument("--advertise-address", metavar="IP", help="address that edges reach this machine by")
    options.add_port(parser, "--hub-port", "where edges connect (default 10000)")
    options.add_port(parser, "--bootstrap-port", "where edges get certificates (default 10002)")
    options.add_port(parser, "--tunnel-port", "log and exec tunnel (default 10004)")


def _run(arguments: argparse.Namespace) -> int:
    if (code := options.common_exit(arguments, "CloudCore")) is not None:
        return code
    plugins, data_dir = options.prepare(arguments)
    advertise = arguments.advertise_address or local_ip()
    kubeedge = arguments.started_as == "cloudcore" and data_dir == SYSTEM_DIR
    values = options.read_config(
        arguments,
        "CloudCore",
        plugins,
        data_dir=data_dir,
        file=options.config_file(arguments, "/etc/kubeedge/config/cloudcore.yaml"),
        underlay={"cloud": cloud_defaults(data_dir, kubeedge_paths=kubeedge, advertise=advertise)},
        overlay=options.overlay(
            ("api.address", arguments.api_address),
            ("cloud.modules.cloudHub.websocket.port", arguments.hub_port),
            ("cloud.modules.cloudHub.https.port", arguments.bootstrap_port),
            ("cloud.modules.cloudStream.tunnelPort", arguments.tunnel_port),
        ),
    )
    api = values["api"]
    api["adminKubeconfig"] = api["adminKubeconfig"] or str(data_dir / "admin.kubeconfig")
    plan = Plan(data_dir=data_dir, cloud=Section({**values["cloud"], "api": api}), edges=(), api=Section(api))
    return options.run_plan(plan, plugins, say_when_serving)


COMMAND = Command("cloud", "Run the cloud role: API, controllers and CloudHub.", _configure, _run)
