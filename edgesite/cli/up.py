"""``edgesite up``: a whole site, the cloud role and one or more edge roles in one process."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesite.cli import options
from edgesite.cli.errors import UsageError
from edgesite.context import Section
from edgesite.hookspecs import Command
from edgesite.runtime.paths import cloud_defaults, edge_defaults, host_name, local_ip
from edgesite.runtime.site import EdgePlan, Plan, Site

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["COMMAND"]

_MOST_EDGES = 200


def _configure(parser: argparse.ArgumentParser) -> None:
    options.add_common(parser)
    parser.add_argument("--node-name", metavar="NAME", help="name of the node (default: the host's name)")
    parser.add_argument(
        "--api-address", metavar="HOST:PORT", type=options.address, help="where the API listens (127.0.0.1:6443)"
    )
    parser.add_argument("--runtime", metavar="NAME", help="auto, cri, process, or a plugin's (default auto)")
    parser.add_argument("--cri-endpoint", metavar="unix:///…", help="socket of the container runtime")
    parser.add_argument(
        "--edge-nodes", metavar="N", type=int, default=1, help="edge roles in this process, each a node of its own"
    )
    options.add_port(parser, "--hub-port", "also let other edges join, on this port")
    options.add_port(
        parser, "--bootstrap-port", "port where other edges get certificates (with --hub-port; default 10002)"
    )
    options.add_port(
        parser, "--tunnel-port", "port for the log and exec tunnel of other edges (with --hub-port; default 10004)"
    )
    parser.add_argument(
        "--demo", action="store_true", help="apply a sample Deployment and a thermostat, and show the site live"
    )


def _run(arguments: argparse.Namespace) -> int:
    if (code := options.common_exit(arguments, "EdgeSite")) is not None:
        return code
    if not 0 <= arguments.edge_nodes <= _MOST_EDGES:
        raise UsageError(f"--edge-nodes {arguments.edge_nodes}: must be from 0 to {_MOST_EDGES}")
    plugins, data_dir = options.prepare(arguments, quiet=arguments.demo)
    ip = local_ip()
    joinable = arguments.hub_port is not None
    cloud = cloud_defaults(data_dir, kubeedge_paths=False, advertise=ip)
    hub = cloud["modules"]["cloudHub"]
    # Together, cloud and edge talk within the process; nothing listens for other edges unless that is asked for.
    hub["websocket"] = {"enable": joinable}
    hub["https"] = {"enable": joinable}
    edge = edge_defaults(data_dir / "edge", kubeedge_paths=False, node_name=host_name(), cloud="127.0.0.1")
    if arguments.demo:
        edge["modules"]["eventBus"] = {"mqttMode": 0}  # the broker within: a demo must not need another program
    values = options.read_config(
        arguments,
        "EdgeSite",
        plugins,
        data_dir=data_dir,
        file=arguments.config,
        underlay={"cloud": cloud, "edge": edge},
        overlay=options.overlay(
            ("api.address", arguments.api_address),
            ("cloud.modules.cloudHub.websocket.port", arguments.hub_port),
            ("cloud.modules.cloudHub.https.port", arguments.bootstrap_port),
            ("cloud.modules.cloudStream.tunnelPort", arguments.tunnel_port),
            ("edge.modules.edged.hostnameOverride", arguments.node_name),
            ("edge.modules.edged.runtime", arguments.runtime),
            ("edge.modules.edged.remoteRuntimeEndpoint", arguments.cri_endpoint),
        ),
    )
    plan = site_plan(values, data_dir, arguments.edge_nodes)
    return options.run_plan(plan, plugins, _beside(arguments, data_dir), configuration=arguments.configuration)


def site_plan(values: dict[str, Any], data_dir: Path, edge_nodes: int) -> Plan:
    """Both roles; edges beyond the first get names, folders and no fixed ports of their own."""
    api = _api(values["api"], data_dir)
    first = values["edge"]["modules"]["edged"]["hostnameOverride"]
    edges = []
    for index, name in enumerate(options.unique_nodes(first, edge_nodes) if edge_nodes else ()):
        edge, folder = values["edge"], data_dir / "edge"
        if index:
            folder = data_dir / "nodes" / name
            edge = _sibling(edge, data_dir / "edge", folder, name)
        edges.append(EdgePlan(name, folder, Section(edge)))
    return Plan(data_dir=data_dir, cloud=Section({**values["cloud"], "api": api}), edges=edges, api=Section(api))


def _api(api: dict[str, Any], data_dir: Path) -> dict[str, Any]:
    return api | {"adminKubeconfig": api["adminKubeconfig"] or str(data_dir / "admin.kubeconfig")}


def _sibling(edge: dict[str, Any], first: Path, folder: Path, name: str) -> dict[str, Any]:
    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(one) for key, one in value.items()}
        if isinstance(value, str) and f"{value}/".startswith(f"{first}/"):
            return f"{folder}{value.removeprefix(str(first))}"
        return value

    copy: dict[str, Any] = moved(edge)
    edged = copy["modules"]["edged"]
    edged["hostnameOverride"] = name
    edged["tailoredKubeletConfig"] |= {"readOnlyPort": 0, "port": 0, "healthzPort": 0}
    copy["modules"]["eventBus"]["mqttServerInternal"] = "tcp://127.0.0.1:0"
    return copy


def _beside(arguments: argparse.Namespace, data_dir: Path) -> Callable[[Site], Coroutine[Any, Any, None]]:
    if arguments.demo:
        from edgesite.cli.demo import demo

        return demo
    from edgesite.cli.ready import say_when_ready

    return say_when_ready


COMMAND = Command("up", "Run a whole site: the cloud role and the edge role in one process.", _configure, _run)
