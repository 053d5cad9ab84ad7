"""``edgesite cloud`` and ``cloudcore``: the cloud role, on the embedded API server or on a cluster's."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesite.cli import options
from edgesite.cli.errors import UsageError
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
    parser.add_argument(
        "--kubeconfig", metavar="FILE", type=Path, help="work on the cluster of this file instead of an API of our own"
    )
    parser.add_argument(
        "--in-cluster", action="store_true", help="work on the cluster in whose pod this runs, by its service account"
    )
    parser.add_argument(
        "--install-crds",
        action="store_true",
        help="write or bring up to date that cluster's custom resources, and webhooks for devices, and exit",
    )
    parser.add_argument(
        "--device-statuses", action="store_true", help="with --install-crds: DeviceStatus of KubeEdge v1.23, too"
    )
    options.add_port(parser, "--hub-port", "where edges connect (default 10000)")
    options.add_port(parser, "--bootstrap-port", "where edges get certificates (default 10002)")
    options.add_port(parser, "--tunnel-port", "log and exec tunnel (default 10004)")


def _run(arguments: argparse.Namespace) -> int:
    if (code := options.common_exit(arguments, "CloudCore")) is not None:
        return code
    outside = bool(arguments.kubeconfig or arguments.in_cluster)
    if arguments.kubeconfig and arguments.in_cluster:
        raise UsageError("--kubeconfig and --in-cluster exclude each other")
    if outside and arguments.api_address:
        raise UsageError("--api-address is for an API of our own, not for a cluster's")
    if arguments.install_crds:
        if not outside:
            raise UsageError("--install-crds goes with --kubeconfig or --in-cluster: our own API has these kinds")
    elif arguments.device_statuses:
        raise UsageError("--device-statuses goes with --install-crds")
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
            ("api.enable", False if outside else None),
            ("cloud.kubeAPIConfig.kubeConfig", _absolute(arguments)),
            ("cloud.modules.cloudHub.websocket.port", arguments.hub_port),
            ("cloud.modules.cloudHub.https.port", arguments.bootstrap_port),
            ("cloud.modules.cloudStream.tunnelPort", arguments.tunnel_port),
        ),
    )
    if arguments.install_crds:
        from edgesite.cli.installcrds import install

        return install(arguments, values["cloud"]["modules"])
    api = dict(values["api"])
    if not outside and works_on_cluster(arguments.started_as, values["cloud"]["kubeAPIConfig"], os.environ):
        if arguments.api_address:
            raise UsageError("--api-address is for an API of our own, but kubeAPIConfig names a cluster")
        api["enable"] = False
    api["adminKubeconfig"] = api["adminKubeconfig"] or str(data_dir / "admin.kubeconfig")
    plan = Plan(data_dir=data_dir, cloud=Section({**values["cloud"], "api": api}), edges=(), api=Section(api))
    return options.run_plan(plan, plugins, say_when_serving, configuration=arguments.configuration)


def works_on_cluster(started_as: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether the API is a cluster's though no option says so: the file names one, or this is ``cloudcore`` in a pod, as KubeEdge has it."""
    if config.get("kubeConfig") or config.get("master"):
        return True
    if started_as != "cloudcore" or "KUBERNETES_SERVICE_HOST" not in environment:
        return False
    from edgesite.client import kubeconfig

    try:
        kubeconfig.from_pod(environment)
    except kubeconfig.BadKubeconfig:  # a pod without an account there
        return False
    return True


def _absolute(arguments: argparse.Namespace) -> str | None:
    if arguments.kubeconfig:
        return str(arguments.kubeconfig.absolute())
    return "" if arguments.in_cluster else None


COMMAND = Command("cloud", "Run the cloud role: API, controllers and CloudHub.", _configure, _run)
