"""``keadm join``: makes this host an edge node of a cloud.

Checks, asks the cloud for its CA (held to the token's hash) and for the node's certificate, writes edgecore.yaml, starts the unit
edgecore, waits until the cloud has the node as Ready. A failure before the node has been taken in leaves the host as it was. Once it
has, a node that is not Ready yet (no CNI plugin, say) stays: that is said, and the exit code is 0, as scripts know it.

The token is used for the certificate and not kept in a file: who reads edgecore.yaml later joins nobody with it.

Errors  KeadmError, OSError.
Source  KubeEdge v1.12.7, keadm/cmd/keadm/app/cmd/join*.go; v1.16 (--hub-protocol), v1.18 (--set), v1.20 (--pre-run, --post-run).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.cli.keadm import files, scripts
from edgesite.cli.keadm.changes import changing, recover
from edgesite.cli.keadm.cloudlink import get_certificate, look_at_cloud, parse_token
from edgesite.cli.keadm.containers import SOCKETS, find_runtime
from edgesite.cli.keadm.edgeconfig import EdgeWishes, edge_document, parse_endpoint, validated, written
from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.localhealth import NodeState, node_state
from edgesite.cli.keadm.parser import add_bool, add_labels, add_unused, parse_labels
from edgesite.cli.keadm.preflight import Preflight
from edgesite.edge.edged.hostcheck import is_wanted
from edgesite.kube.names import dns1123_subdomain_problems
from edgesite.runtime.paths import host_name

if TYPE_CHECKING:
    from edgesite.cli.keadm.changes import Changes
    from edgesite.cli.keadm.cloudlink import Token
    from edgesite.cli.keadm.command import Tools

__all__ = ["configure", "run"]

UNIT: Final = "edgecore"
_POLL_S: Final = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-e", "--cloudcore-ipport", metavar="HOST:PORT", help="the cloud's hub; needed")
    parser.add_argument("-t", "--token", default="", help="what `keadm gettoken` prints on the cloud side")
    parser.add_argument(
        "--token-file", metavar="FILE", help="the token in a file, where other users of the host do not see it in ps"
    )
    parser.add_argument(
        "-i", "--edgenode-name", metavar="NAME", default="", help="name of the node (default: the host's)"
    )
    parser.add_argument(
        "-r", "--runtimetype", metavar="TYPE", default="", help="remote: a CRI runtime (docker is taken as cri-dockerd)"
    )
    parser.add_argument(
        "-p",
        "--remote-runtime-endpoint",
        metavar="unix:///…",
        default="",
        help="socket of the runtime (default: one that is there)",
    )
    parser.add_argument(
        "--cgroupdriver", metavar="NAME", default="", help="cgroupfs or systemd (default: as the runtime has it)"
    )
    parser.add_argument(
        "-s", "--certport", metavar="PORT", default="", help="port where the cloud gives certificates (10002)"
    )
    add_labels(parser)
    add_bool(
        parser,
        "--with-mqtt",
        default=True,
        help="MQTT by edgecore's own broker (default true); false: by one of yours at port 1883",
    )
    parser.add_argument("--hub-protocol", metavar="NAME", default="websocket", help="websocket or quic")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets", help="any setting of edgecore.yaml"
    )
    parser.add_argument(
        "--wait", metavar="SECONDS", type=float, default=120.0, help="for the node to be Ready (120); 0: do not wait"
    )
    parser.add_argument("--no-systemd", action="store_true", help="start nothing; print what to run")
    add_bool(parser, "-d", "--dry-run", default=False, help="check, and say what would be done")
    scripts.add_scripts(parser)
    none = "nothing is downloaded: the programs are on this host"
    add_unused(
        parser,
        [
            ("--kubeedge-version", none),
            ("--image-repository", none),
            ("--tarballpath", none),
            ("--certPath", "certificates are in /etc/kubeedge/certs"),
            ("--cni-plugin-path", "settings of CNI are the runtime's"),
        ],
    )


def run(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError, OSError."""
    _check_flags(arguments)
    scripts.before(arguments, tools)  # it may install a container runtime
    _join(arguments, tools)
    scripts.after(arguments, tools)


def _join(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError, OSError."""
    wishes, token = _wishes(arguments, tools)
    _check(arguments, tools, wishes, token)
    cloud = look_at_cloud(wishes.cloud.bootstrap, token, wishes.node)
    if cloud.skew_s:
        tools.progress.warn(
            f"this host's clock differs by {cloud.skew_s:+.0f} s from the cloud's: certificates may be refused"
        )
    if cloud.node_exists and token.node != wishes.node:
        raise KeadmError(
            f"node {wishes.node} exists in the cloud: choose another --edgenode-name, delete the Node there (kubectl delete node {wishes.node}),"
            f" or join with a token of its own (there: keadm gettoken --node {wishes.node})"
        )
    data, values = _configuration(arguments, tools, wishes)
    with changing(tools.host, tools.systemd, tools.progress) as changes:
        changes.folder(files.LOGS)
        changes.folder(files.STATE, 0o711)
        program = changes.program(UNIT)
        changes.file(values["modules"]["edgeHub"]["tlsCaFile"], cloud.ca, 0o644)
        changes.file(files.EDGECORE_YAML, data, 0o600)
        _certificate(tools, changes, wishes, values)
        if not _uses_systemd(arguments, tools):
            tools.progress.say(f"systemd does not run here: start the edge with\n  {program}")
            return
        changes.unit(UNIT, program)
        changes.filled_by_program(files.STATE, "/var/lib/edged")
        changes.enable_and_start(UNIT)
        if tools.progress.dry_run:
            return
        state = _wait(arguments, tools, values)
    tools.progress.say("KubeEdge edgecore is running, For logs visit: journalctl -u edgecore.service -xe")
    if state is not None and state.is_ready:
        tools.progress.say(f"node {wishes.node} is Ready")
    elif state is not None:
        tools.progress.warn(
            f"node {wishes.node} has joined and is not Ready yet: {state.problem or 'it has not said why'}"
        )


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raises KeadmError."""
    if not arguments.cloudcore_ipport:
        raise KeadmError('required flag(s) "cloudcore-ipport" not set')
    if arguments.cgroupdriver not in ("", "cgroupfs", "systemd"):
        raise KeadmError(f"unsupported CGroupDriver: {arguments.cgroupdriver}")
    if arguments.runtimetype not in ("", "docker", "remote"):
        raise KeadmError(f"unsupport CRI runtime: {arguments.runtimetype}")
    if arguments.hub_protocol not in ("websocket", "quic"):
        raise KeadmError(f"--hub-protocol: {arguments.hub_protocol!r} is neither websocket nor quic")


def _wishes(arguments: argparse.Namespace, tools: Tools) -> tuple[EdgeWishes, Token]:
    """Raises KeadmError."""
    node = arguments.edgenode_name or host_name()
    if problems := dns1123_subdomain_problems(node):
        raise KeadmError(f"--edgenode-name {node}: {problems[0]}")
    text = _token_text(arguments)
    wishes = EdgeWishes(
        cloud=parse_endpoint(arguments.cloudcore_ipport, arguments.certport),
        node=node,
        token=text,
        protocol=arguments.hub_protocol,
        runtime_endpoint=_runtime_endpoint(arguments, tools),
        cgroup_driver=arguments.cgroupdriver,
        labels=parse_labels(arguments.labels),
        with_mqtt=arguments.with_mqtt,
    )
    return wishes, parse_token(text)


def _token_text(arguments: argparse.Namespace) -> str:
    if not arguments.token_file:
        text: str = arguments.token
    else:
        try:
            text = Path(arguments.token_file).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise KeadmError(f"--token-file: {exc}") from None
    if not text.strip():
        raise KeadmError("--token is needed: what `keadm gettoken` prints on the cloud side")
    return text.strip()


def _runtime_endpoint(arguments: argparse.Namespace, tools: Tools) -> str:
    """The socket that is asked for, else one that is there, else "". Raises KeadmError."""
    found = find_runtime(tools.host, arguments.remote_runtime_endpoint, arguments.runtimetype)
    if not found and arguments.runtimetype == "remote":
        raise KeadmError(f"no container runtime is there: looked for {', '.join(SOCKETS)}")
    if not found:
        tools.progress.warn("no container runtime is there: pods run as host processes until one is installed")
    return found


def _check(arguments: argparse.Namespace, tools: Tools, wishes: EdgeWishes, token: Token) -> None:
    """Raises KeadmError."""
    tools.progress.step("check this host")
    checks = Preflight(tools.host, tools.progress)
    recover(tools.host, tools.systemd, tools.progress)
    checks.not_running(UNIT, "EdgeCore")
    modules = files.read_document(tools.host, files.EDGECORE_YAML).get("modules") or {}
    if is_wanted(modules, os.environ):
        checks.no_other_agent()
    checks.clock()
    checks.disk(files.STATE)
    checks.program(UNIT)
    checks.runtime(wishes.runtime_endpoint)
    if not checks.problems:
        checks.ports({10350: "kubelet's API", 10248: "health of edgecore"})
    left = () if checks.problems else ("/etc/kubeedge/certs/server.crt", "/var/lib/kubeedge/edgecore.db")
    for path in left:
        if tools.host.path(path).exists():
            checks.problems.append(
                f"the management directory {files.MANAGEMENT}/ is not clean, please remove it first: {path} is of an earlier node"
                " (keadm reset removes it)"
            )
            break
    if token.expires_at <= time.time():
        shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(token.expires_at))
        checks.problems.append(f"the token expired at {shown} UTC: get another by keadm gettoken")
    if token.node and token.node != wishes.node:
        checks.problems.append(f"the token is for node {token.node} alone, this is {wishes.node}")
    checks.finish()


def _configuration(arguments: argparse.Namespace, tools: Tools, wishes: EdgeWishes) -> tuple[bytes, dict[str, Any]]:
    """The file to write, and all values that follow from it. Raises KeadmError."""
    from edgesite.cli.keadm.settings import applied

    base = files.read_document(tools.host, files.EDGECORE_YAML) or _short_default()
    document = applied(edge_document(base, wishes), arguments.sets)
    values = validated("EdgeCore", written(document, "join"))
    document["modules"]["edgeHub"]["token"] = ""
    return written(document, "join"), values


def _short_default() -> dict[str, Any]:
    import yaml

    from edgesite.runtime.config.validate import defaults

    document: dict[str, Any] = yaml.safe_load(defaults("EdgeCore", minimal=True))
    document["modules"]["edged"] = {"enable": True}
    return document


def _certificate(tools: Tools, changes: Changes, wishes: EdgeWishes, values: dict[str, Any]) -> None:
    tools.progress.step(f"get the certificate of node {wishes.node} from {wishes.cloud.bootstrap}")
    if tools.progress.dry_run:
        return
    hub = values["modules"]["edgeHub"]
    certificate, key = hub["tlsCertFile"], hub["tlsPrivateKeyFile"]
    changes.folder(str(Path(certificate).parent), 0o700)
    made = (certificate, key, f"{certificate}.token", hub["tlsCaFile"])
    changes.made_by_program(*made, *(f"{one}.new" for one in made))
    placed = {name: str(tools.host.path(hub[name])) for name in ("tlsCaFile", "tlsCertFile", "tlsPrivateKeyFile")}
    get_certificate(wishes.node, {**json.loads(json.dumps(hub)), **placed})


def _uses_systemd(arguments: argparse.Namespace, tools: Tools) -> bool:
    return not arguments.no_systemd and tools.host.has_systemd()


def _wait(arguments: argparse.Namespace, tools: Tools, values: dict[str, Any]) -> NodeState | None:
    """Wait until the node is Ready, or the time is over. Raises KeadmError where the cloud has not taken it in."""
    port = values["modules"]["edged"]["tailoredKubeletConfig"]["healthzPort"]
    if arguments.wait <= 0 or not port:
        return None
    tools.progress.step("wait until the node is Ready")
    deadline = time.monotonic() + arguments.wait
    state = NodeState()
    while time.monotonic() < deadline:
        state = node_state(port)
        if state.is_ready:
            return state
        if (
            not tools.systemd.is_active(UNIT)
            and tools.systemd.properties(UNIT, "ActiveState").get("ActiveState") == "failed"
        ):
            raise KeadmError(f"edge node join failed: edgecore has ended:{tools.systemd.last_words(UNIT)}")
        time.sleep(_POLL_S)
    if not state.is_registered:
        why = state.problem or "edgecore does not answer"
        words = tools.systemd.last_words(UNIT)
        raise KeadmError(
            f"edge node join failed: the node has not been registered within {arguments.wait:g} s: {why}{words}"
        )
    return state
