"""``keadm reset``: undoes init or join on this host.

Stops and disables the unit, ends what it runs, removes state and certificates. What packages have brought stays: programs, units, examples.
The Node object and a cluster's namespace are the cluster's: the namespace is deleted as KubeEdge does it, the Node stays.

Errors  KeadmError. Steps after the unit has been stopped are tried all; what fails is said.
Source  KubeEdge v1.12.7, keadm/cmd/keadm/app/cmd/reset.go (flags, messages, folders); v1.20 (--pre-run, --post-run).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm import containers, files, scripts
from edgesite.cli.keadm.apiaccess import NAMESPACE, ask, own_kubeconfigs
from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.journal import Journal
from edgesite.cli.keadm.parser import add_bool, add_unused
from edgesite.cli.keadm.systemd import MARK, OWN_UNITS

if TYPE_CHECKING:
    from edgesite.cli.keadm.command import Tools
    from edgesite.client import Client

__all__ = ["configure", "run"]

_UNITS: Final = {"cloudcore": "CloudCore", "edgecore": "EdgeCore"}
#: What packages bring below /etc/kubeedge; the rest is the site's.
_KEPT: Final = ("config", "crds", "tools")
_KEPT_SUFFIXES: Final = (".example.yaml", ".service", ".tar.gz", ".txt", ".rpmsave", ".rpmnew", ".dpkg-old")
_CLOUD_STATE: Final = ("cloudcore", "cloud", "admin.kubeconfig")
_EDGE_FOLDERS: Final = ("/var/lib/edged", "/var/lib/dockershim", "/run/kubernetes", "/var/lib/cni")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "part",
        metavar="cloud|edge",
        nargs="?",
        choices=("cloud", "edge"),
        help="only that side (default: what is here)",
    )
    parser.add_argument(
        "--kube-config", metavar="FILE", default="", help="kubeconfig of the cluster that cloudcore works on"
    )
    add_bool(parser, "--force", default=False, help="do not ask")
    parser.add_argument(
        "-p", "--remote-runtime-endpoint", metavar="unix:///…", default="", help="socket of the container runtime"
    )
    add_bool(parser, "-d", "--dry-run", default=False, help="say what would be done")
    scripts.add_scripts(parser)
    add_unused(parser, [("-r --runtimetype", "the runtime is found by its socket")])


def run(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError."""
    progress = tools.progress
    if tools.systemd.is_enabled("edgesite"):
        raise KeadmError("edgesite.service is this host's site: keadm reset is for hosts of keadm init and keadm join")
    here = [one for one in _UNITS if _is_here(tools, one)]
    found = [one for one in here if arguments.part is None or one.startswith(arguments.part)]
    if not found:
        progress.say("None of KubeEdge components are running in this host, exit")
        return
    if not arguments.force and not progress.dry_run:
        _confirm("cloudcore" in found and bool(own_kubeconfigs(tools.host)))
    scripts.before(arguments, tools)
    if not progress.dry_run:
        Journal(tools.host, tools.systemd).undo(progress.warn)
    if "cloudcore" in found:
        _reset_cloud(arguments, tools)
    if "edgecore" in found:
        _reset_edge(arguments, tools)
    _clean(tools, found, alone=found == here)
    scripts.after(arguments, tools)


def _is_here(tools: Tools, unit: str) -> bool:
    """Whether it runs, or has been set up. State alone is no sign: a site of `edgesite up` keeps its own in the same place."""
    file = files.CLOUDCORE_YAML if unit == "cloudcore" else files.EDGECORE_YAML
    return bool(tools.host.processes(unit)) or tools.systemd.is_active(unit) or tools.host.path(file).exists()


def _confirm(erases_api: bool) -> None:
    """Raises KeadmError if the answer is no."""
    print("[reset] WARNING: Changes made to this host by 'keadm init' or 'keadm join' will be reverted.")
    if erases_api:
        print("[reset] WARNING: The API of this host is deleted, with all objects in it.")
    print("[reset] Are you sure you want to proceed? [y/N]: ", end="", flush=True)
    if sys.stdin.readline().strip().lower() != "y":
        raise KeadmError("aborted reset operation")


def _reset_cloud(arguments: argparse.Namespace, tools: Tools) -> None:
    document = files.read_document(tools.host, files.CLOUDCORE_YAML)
    kubeconfig = arguments.kube_config or (document.get("kubeAPIConfig") or {}).get("kubeConfig") or ""
    _stop(tools, "cloudcore")
    if kubeconfig and Path(kubeconfig).is_file():
        tools.progress.step(f"delete the namespace {NAMESPACE} of the cluster")
        if not tools.progress.dry_run:
            _try(tools, f"Failed to delete the namespace {NAMESPACE}", _delete_namespace, Path(kubeconfig))


def _reset_edge(arguments: argparse.Namespace, tools: Tools) -> None:
    document = files.read_document(tools.host, files.EDGECORE_YAML)
    edged = (document.get("modules") or {}).get("edged") or {}
    endpoint = arguments.remote_runtime_endpoint or str(edged.get("remoteRuntimeEndpoint") or "")
    _stop(tools, "edgecore")
    tools.progress.say("edgecore is stopped")
    tools.progress.step("end the node's pods")
    if not tools.progress.dry_run:
        node = str(edged.get("hostnameOverride") or "")
        _try(tools, "Failed to remove containers", containers.remove_pods, tools.host, endpoint, node)
        _try(tools, "Failed to end host processes", containers.end_supervisors, tools.host)


def _stop(tools: Tools, unit: str) -> None:
    tools.progress.step(f"stop and disable {unit}.service")
    if tools.progress.dry_run:
        return
    installed = tools.systemd.unit_file(unit)
    if installed is not None and tools.host.has_systemd():
        tools.systemd.stop(unit)
        tools.systemd.disable(unit)
    own = tools.host.path(f"{OWN_UNITS}/{unit}.service")
    if own.is_file() and own.read_text(errors="replace").startswith(MARK):
        own.unlink()
        if tools.host.has_systemd():
            tools.systemd.reload()
    link = tools.host.path(f"{files.PROGRAMS}/{unit}")
    if link.is_symlink() and link.resolve() == tools.host.own_program() and str(own.parent) in str(installed):
        link.unlink()
    if pid := tools.host.processes(unit).get(unit):
        raise KeadmError(f"{unit} still runs (process {pid}), and not by systemd: stop it first")


def _clean(tools: Tools, units: list[str], *, alone: bool) -> None:
    """Remove state and certificates; what the other side of this host has stays, if that stays."""
    for unit in units:
        _remove(tools, files.CLOUDCORE_YAML if unit == "cloudcore" else files.EDGECORE_YAML)
    if "cloudcore" in units:
        for path in (files.KUBECONFIG, *(f"{files.STATE}/{one}" for one in _CLOUD_STATE)):
            _remove(tools, path)
    if alone:
        for folder in (files.MANAGEMENT, files.LOGS):
            _empty(tools, folder, _is_packaged)
    if "edgecore" in units:
        _empty(tools, files.STATE, lambda path: path.name in _CLOUD_STATE)
        for folder in _EDGE_FOLDERS:
            _empty(tools, folder, lambda path: False)


def _is_packaged(path: Path) -> bool:
    return path.name in _KEPT or path.name.endswith(_KEPT_SUFFIXES)


def _empty(tools: Tools, folder: str, is_kept: Callable[[Path], bool]) -> None:
    place = tools.host.path(folder)
    for one in sorted(place.iterdir()) if place.is_dir() else ():
        if not is_kept(one):
            _remove(tools, f"{folder}/{one.name}")


def _remove(tools: Tools, path: str) -> None:
    from edgesite.edge.edged.volumes.host import remove_tree

    place = tools.host.path(path)
    if not place.exists() and not place.is_symlink():
        return
    tools.progress.step(f"remove {path}")
    if not tools.progress.dry_run:
        is_folder = place.is_dir() and not place.is_symlink()
        _try(tools, f"Failed to delete {path}", remove_tree if is_folder else os.unlink, place)


def _delete_namespace(kubeconfig: Path) -> None:
    from edgesite.kube.errors import ApiError
    from edgesite.kube.resources import NAMESPACES

    async def question(client: Client) -> None:
        try:
            await client.delete(NAMESPACES, NAMESPACE)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise

    ask(kubeconfig, question)


def _try(tools: Tools, what: str, function: object, *arguments: object) -> None:
    """One of the last steps: its failure is said, and the others follow."""
    assert callable(function)
    try:
        function(*arguments)
    except (OSError, KeadmError) as exc:
        tools.progress.warn(f"{what}: {exc}")
