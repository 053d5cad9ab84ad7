"""``keadm init``: makes this host the cloud side, on a cluster's API or with one of its own.

With ``--kube-config``, or if there is root's ``.kube/config``, cloudcore works on that cluster; else it brings an API server. Both run as the
unit cloudcore on this host. On a cluster the namespace and the custom resources are made, and stay after a failure: others may use them.

Errors  KeadmError, OSError.
Source  KubeEdge v1.12.7, keadm/cmd/keadm/app/cmd/init.go (flags, messages).
"""

from __future__ import annotations

import argparse
import ipaddress
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm import cluster, files
from edgesite.cli.keadm.apiaccess import own_kubeconfigs, read_token
from edgesite.cli.keadm.changes import changing, recover
from edgesite.cli.keadm.cloudconfig import (
    CloudWishes,
    cloud_document,
    profile_settings,
    settings_of_chart,
    whole_kubeconfig,
)
from edgesite.cli.keadm.edgeconfig import validated, written
from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.parser import add_bool, add_unused
from edgesite.cli.keadm.preflight import Preflight
from edgesite.cli.keadm.systemd import CLOUD_STATE
from edgesite.runtime.paths import local_ip

if TYPE_CHECKING:
    from edgesite.cli.keadm.command import Tools

__all__ = ["configure", "run"]

UNIT: Final = "cloudcore"
_POLL_S: Final = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--advertise-address", metavar="IP,…", default="", help="addresses that edges reach this host by"
    )
    parser.add_argument("--domainname", metavar="NAME,…", default="", help="names that edges reach this host by")
    parser.add_argument(
        "--kube-config", metavar="FILE", default=None,
        help=f"work on the cluster of this file (default {files.ROOT_KUBECONFIG} if it is there)",
    )  # fmt: skip
    parser.add_argument(
        "--embedded-api", action="store_true", help="serve an API of our own, whatever kubeconfig is there"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets", help="settings, as of KubeEdge's chart"
    )
    parser.add_argument("--profile", metavar="KEY=VALUE", default="", help="iptablesmgr=internal|external")
    add_bool(parser, "--force", default=False, help="go on where cloudcore runs, and do not wait")
    add_bool(parser, "-d", "--dry-run", default=False, help="check, and say what would be done")
    parser.add_argument("--wait", metavar="SECONDS", type=float, default=60.0, help="for cloudcore to be ready (60)")
    parser.add_argument("--no-systemd", action="store_true", help="start nothing; print what to run")
    none = "nothing is downloaded: the programs are on this host"
    chart = "cloudcore runs as a unit of this host, not from a chart"
    add_unused(
        parser,
        [
            ("--kubeedge-version", none),
            ("--image-repository", none),
            ("--tarballpath", none),
            ("--master", "the kubeconfig says where the API is"),
            ("--manifests", chart),
            ("-f --files", chart),
            ("--external-helm-root", chart),
            ("--values", chart),
        ],
    )
    add_unused(parser, [("--skip-crds", chart), ("--print-final-values", chart)], is_bool=True)


def run(arguments: argparse.Namespace, tools: Tools) -> None:
    """Raises KeadmError, OSError."""
    progress = tools.progress
    kubeconfig = _kubeconfig(arguments, tools)
    _check(arguments, tools, kubeconfig)
    if kubeconfig is not None:
        cluster.check_version(kubeconfig)
        progress.say("Kubernetes version verification passed, KubeEdge installation will start...")
    data = _configuration(arguments, tools, kubeconfig)
    with changing(tools.host, tools.systemd, progress) as changes:
        user = tools.systemd.user_of(UNIT) if _uses_systemd(arguments, tools) else ""
        if kubeconfig is not None:
            _prepare_cluster(tools, kubeconfig)
            changes.file(files.KUBECONFIG, whole_kubeconfig(kubeconfig), 0o600, user)
        changes.folder(files.LOGS)
        changes.folder(files.STATE, 0o711)
        changes.file(files.CLOUDCORE_YAML, data, 0o640, user)
        program = changes.program(UNIT)
        if not _uses_systemd(arguments, tools):
            progress.say(f"systemd does not run here: start the cloud side with\n  {program} --data-dir {CLOUD_STATE}")
            return
        changes.unit(UNIT, program)
        changes.filled_by_program(files.STATE, CLOUD_STATE)
        changes.enable_and_start(UNIT)
        if progress.dry_run:
            return
        if not arguments.force:
            _wait(arguments.wait, tools, kubeconfig)
    _report(tools, kubeconfig)


def _kubeconfig(arguments: argparse.Namespace, tools: Tools) -> Path | None:
    """The cluster's file; None for an API of our own. Raises KeadmError."""
    given: str | None = arguments.kube_config
    before = files.read_document(tools.host, files.CLOUDCORE_YAML)
    if arguments.embedded_api:
        if given:
            raise KeadmError("--embedded-api and --kube-config exclude each other")
        return None
    if given:
        if not Path(given).is_file():
            raise KeadmError(f"--kube-config {given}: there is no such file")
        return Path(given)
    if (
        given == ""
        or own_kubeconfigs(tools.host)
        or (before and not (before.get("kubeAPIConfig") or {}).get("kubeConfig"))
    ):
        return None  # asked for, or the way it was before
    root = tools.host.path(files.ROOT_KUBECONFIG)
    if not root.is_file():
        return None
    tools.progress.note(f"the cluster of {root} is used; --embedded-api brings an API of our own instead")
    return root


def _check(arguments: argparse.Namespace, tools: Tools, kubeconfig: Path | None) -> None:
    """Raises KeadmError."""
    tools.progress.step("check this host")
    checks = Preflight(tools.host, tools.progress)
    recover(tools.host, tools.systemd, tools.progress)
    is_running = bool(tools.host.processes(UNIT))
    if not arguments.force:
        checks.not_running(UNIT, "CloudCore")
    checks.clock()
    checks.disk(files.STATE)
    checks.program(UNIT)
    if not is_running and not checks.problems:
        ports = {10000: "edges", 10002: "certificates of edges", 10004: "logs and commands of edges"}
        checks.ports(ports if kubeconfig else ports | {6443: "the API"})
    checks.finish()


def _configuration(arguments: argparse.Namespace, tools: Tools, kubeconfig: Path | None) -> bytes:
    """The file to write. Raises KeadmError."""
    from edgesite.cli.keadm.settings import applied

    base = files.read_document(tools.host, files.CLOUDCORE_YAML)
    hub = (base.get("modules") or {}).get("cloudHub") or {}
    advertise = [one.strip() for one in arguments.advertise_address.split(",") if one.strip()]
    for one in advertise:
        try:
            ipaddress.ip_address(one)
        except ValueError:
            raise KeadmError(f"--advertise-address: {one!r} is no IP address (names go to --domainname)") from None
    if not advertise and not hub.get("advertiseAddress"):
        advertise = [local_ip()]
    names = [one.strip() for one in arguments.domainname.split(",") if one.strip()]
    wishes = CloudWishes(advertise, names, files.KUBECONFIG if kubeconfig else "")
    sets = [*profile_settings(arguments.profile, tools.progress), *settings_of_chart(arguments.sets, tools.progress)]
    data = written(applied(cloud_document(base, wishes), sets), "init")
    validated("CloudCore", data)
    return data


def _prepare_cluster(tools: Tools, kubeconfig: Path) -> None:
    tools.progress.step("make the namespace kubeedge and the custom resources in the cluster")
    if not tools.progress.dry_run:
        for line in cluster.prepare(kubeconfig):
            tools.progress.note(line)


def _uses_systemd(arguments: argparse.Namespace, tools: Tools) -> bool:
    return not arguments.no_systemd and tools.host.has_systemd()


def _wait(seconds: float, tools: Tools, kubeconfig: Path | None) -> None:
    """Wait until edges can join: cloudcore keeps a token. Raises KeadmError."""
    tools.progress.step("wait until cloudcore is ready")
    deadline = time.monotonic() + seconds
    why = "its API is not there yet"
    while time.monotonic() < deadline:
        if not tools.systemd.is_active(UNIT):
            state = tools.systemd.properties(UNIT, "ActiveState").get("ActiveState", "")
            if state == "failed":
                raise KeadmError(f"cloudcore has ended:{tools.systemd.last_words(UNIT)}")
        elif (found := kubeconfig or next(iter(own_kubeconfigs(tools.host)), None)) is not None:
            try:
                read_token(found)
            except KeadmError as exc:
                why = str(exc)
            else:
                return
        time.sleep(_POLL_S)
    raise KeadmError(
        f"timed out waiting for the condition: cloudcore was not ready within {seconds:g} s: {why}{tools.systemd.last_words(UNIT)}"
    )


def _report(tools: Tools, kubeconfig: Path | None) -> None:
    say = tools.progress.say
    say("CLOUDCORE started")
    say("=========CHART DETAILS=======")
    say("NAME: cloudcore")
    say(f"LAST DEPLOYED: {datetime.now(UTC):%a %b %e %H:%M:%S %Y}")
    say("NAMESPACE: kubeedge")
    say("STATUS: deployed")
    say("REVISION: 1")
    if kubeconfig is None and (own := own_kubeconfigs(tools.host)):
        tools.progress.note(f"kubectl --kubeconfig {own[0]} get nodes")
