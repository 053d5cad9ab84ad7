"""``edgesite edge`` and ``edgecore``: the edge role, joined to a cloud role elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from edgesite.cli import options
from edgesite.cli.errors import UsageError
from edgesite.cli.ready import say_when_serving
from edgesite.context import Section
from edgesite.hookspecs import Command
from edgesite.runtime.paths import SYSTEM_DIR, edge_defaults, host_name
from edgesite.runtime.site import EdgePlan, Plan

__all__ = ["COMMAND"]

_MOST_TOKEN: Final = 65536

_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def _configure(parser: argparse.ArgumentParser) -> None:
    options.add_common(parser)
    parser.add_argument("--cloud", metavar="HOST", help="name or address of the machine with the cloud role")
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        help="what `edgesite token` prints there; needed for the first join only; other users of this host see it in ps",
    )
    parser.add_argument(
        "--token-file", metavar="FILE", type=Path, help="read the token from a file instead; - is standard input"
    )
    parser.add_argument(
        "--proxy",
        metavar="URL",
        help="proxy on the way to the cloud: http:// or socks5:// (default: HTTPS_PROXY, ALL_PROXY)",
    )
    parser.add_argument("--node-name", metavar="NAME", help="name of the node (default: the host's name)")
    parser.add_argument("--runtime", metavar="NAME", help="auto, cri, process, or a plugin's (default auto)")
    parser.add_argument("--cri-endpoint", metavar="unix:///…", help="socket of the container runtime")
    options.add_port(parser, "--hub-port", "port of the cloud's hub (default 10000)")
    options.add_port(parser, "--bootstrap-port", "port where the cloud gives certificates (default 10002)")
    options.add_port(parser, "--tunnel-port", "port of the cloud's log and exec tunnel (default 10004)")


def _run(arguments: argparse.Namespace) -> int:
    if (code := options.common_exit(arguments, "EdgeCore")) is not None:
        return code
    plugins, data_dir = options.prepare(arguments)
    file = options.config_file(arguments, "/etc/kubeedge/config/edgecore.yaml")
    cloud: str | None = arguments.cloud
    if not cloud and not file:
        raise UsageError("--cloud HOST is needed (or a --config file that names the cloud)")
    host = f"[{cloud}]" if cloud and ":" in cloud and not cloud.startswith("[") else cloud
    kubeedge = arguments.started_as == "edgecore" and data_dir == SYSTEM_DIR
    name = arguments.node_name or host_name()
    folder = data_dir if kubeedge else data_dir / "edge"
    ports = (arguments.hub_port, arguments.bootstrap_port, arguments.tunnel_port)
    if any(ports) and not host:
        raise UsageError("--hub-port, --bootstrap-port and --tunnel-port go with --cloud")
    values = options.read_config(
        arguments,
        "EdgeCore",
        plugins,
        data_dir=data_dir,
        file=file,
        underlay={"edge": edge_defaults(folder, kubeedge_paths=kubeedge, node_name=name, cloud=host or "127.0.0.1")},
        overlay=options.overlay(
            ("edge.modules.edged.hostnameOverride", arguments.node_name),
            ("edge.modules.edged.runtime", arguments.runtime),
            ("edge.modules.edged.remoteRuntimeEndpoint", arguments.cri_endpoint),
            ("edge.modules.edgeHub.token", _token(arguments)),
            ("edge.modules.edgeHub.proxy", _proxy(arguments.proxy, cloud)),
            ("edge.modules.edgeHub.websocket.server", host and f"{host}:{arguments.hub_port or 10000}"),
            ("edge.modules.edgeHub.httpServer", host and f"https://{host}:{arguments.bootstrap_port or 10002}"),
            ("edge.modules.edgeStream.server", host and f"{host}:{arguments.tunnel_port or 10004}"),
        ),
    )
    edge = values["edge"]
    plan = EdgePlan(edge["modules"]["edged"]["hostnameOverride"], folder, Section(edge))
    whole = Plan(data_dir=data_dir, cloud=None, edges=(plan,), api=None)
    return options.run_plan(whole, plugins, say_when_serving, configuration=arguments.configuration)


def _proxy(given: str | None, cloud: str | None) -> str | None:
    """The proxy as given, else as the environment has it for this host; None if there is none. Raises UsageError."""
    from edgesite.net.proxy import bypasses, parse_proxy

    found, env = given, os.environ
    if found is None and cloud:
        found = next((env[name] for name in _PROXIES if env.get(name)), None)
        if found and any(bypasses(env.get(name, ""), cloud) for name in ("NO_PROXY", "no_proxy")):
            found = None
    if found:
        try:
            parse_proxy(found)
        except ValueError as exc:
            raise UsageError(f"--proxy: {exc}") from None
    return found


def _token(arguments: argparse.Namespace) -> str | None:
    if arguments.token_file is None:
        token: str | None = arguments.token
        return token
    try:
        text = sys.stdin.read(_MOST_TOKEN) if str(arguments.token_file) == "-" else arguments.token_file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"--token-file {arguments.token_file}: {exc}") from None
    return str(text).strip()


COMMAND = Command("edge", "Run the edge role and join it to a cloud role.", _configure, _run)
