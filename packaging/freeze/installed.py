"""Installs what was packaged into roots of its architecture and uses it: debs with dpkg, RPMs with dnf, scriptlets run by the root's own shell.

The roots are a small Debian each, systemd among it; nothing is booted. RPMs are told what such a root has by a package that stands for the rest of a
system. Of the installed program: its names, the service's user, a plugin in C, a site whose pod kubectl makes; then the packages are removed. Programs of
another architecture run under qemu.

Errors  BuildFailed.
State   ``debian-ARCHITECTURE.tar`` in the cache, kept; roots beside it, gone at the end.
Needs   mmdebstrap, dnf, rpmbuild, createrepo_c.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from command import BuildFailed, run, say
from contents import LINKS
from emulation import prepare
from layout import CACHE, PROJECT, Architecture, native
from mirror import MIRROR
from trial import into, output, plugin, same, wait

sys.path += [str(PROJECT), str(PROJECT / "tests")]
from peers import kubectl

from benchmarks import rig

__all__ = ["try_packages"]

_RELEASE: Final = "bookworm"
_INCLUDED: Final = "ca-certificates,procps,systemd"
_STARTS_S: Final = 600
_POD: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "works"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "host", "command": ["sh", "-c", "echo hello; exec sleep 3600"]}],
    },
}
_STUB: Final = """\
Name: rest-of-the-system
Version: 1
Release: 1
Summary: Stands for what the root has, or need not have
License: CC0-1.0
BuildArch: noarch
{provides}
%description
Stub.
%files
"""
_CONFIGURATION: Final = "etc/kubeedge/config/edgesite.yaml"
_OURS: Final = "# changed by whom it belongs to\n"


def try_packages(target: Architecture) -> None:
    """Raises BuildFailed."""
    folder = PROJECT / "dist" / "packages" / target.name
    if target != native():
        prepare(target)
    wheel = plugin(target)
    for kind, make in (("deb", _Debs), ("rpm", _Rpms)):
        if not any((folder / kind).glob(f"*.{kind}")):
            raise BuildFailed(f"there are no packages in {folder / kind}: run `make rpm deb`")
        with tempfile.TemporaryDirectory(prefix=f"installed-{target.name}-", dir=CACHE) as scratch:
            root = Path(scratch) / "root"
            root.mkdir()
            run(["tar", "-xf", _system(target), "-C", root])
            shutil.copy(wheel, root / wheel.name)
            packages = make(root, folder / kind)
            packages.install()
            say(f"{kind}: installed for {target.name}")
            _use(root, wheel.name, kind)
            packages.remove()
            _is_removed(root)
            say(f"{kind}: removed, the configuration is kept")


class _Debs:
    """Packages for dpkg."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._names = [path.name for path in sorted(folder.glob("*.deb"))]
        shutil.copytree(folder, root / "packages")

    def install(self) -> None:
        """Raises BuildFailed."""
        output(self._root, ["dpkg", "--install", *(f"/packages/{name}" for name in self._names)])

    def remove(self) -> None:
        """Raises BuildFailed."""
        output(self._root, ["dpkg", "--remove", *(name.partition("_")[0] for name in self._names)])


class _Rpms:
    """Packages for dnf, of this machine, which works on the root."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root, folder
        (common,) = folder.glob("kubeedge-common-*.rpm")
        self._arch = run(["rpm", "-qp", "--qf", "%{ARCH}", common])

    def install(self) -> None:
        """Raises BuildFailed."""
        stub = self._root.parent / "stub"
        (stub / "SPECS").mkdir(parents=True)
        needs = {line.split(" ")[0] for one in self._folder.glob("*.rpm") for line in self._asked(one)}
        others = sorted(one for one in needs if not one.startswith(("kubeedge", "rpmlib(")))
        spec = stub / "SPECS" / "stub.spec"
        spec.write_text(_STUB.format(provides="\n".join(f"Provides: {one}" for one in others)))
        run(["rpmbuild", "-bb", "--define", f"_topdir {stub}", "--define", f"_rpmdir {stub}", spec])
        run(["createrepo_c", "--quiet", stub])
        self._dnf("install", "kubeedge")

    def remove(self) -> None:
        """Raises BuildFailed."""
        self._dnf("remove", "kubeedge*")

    def _asked(self, rpm: Path) -> list[str]:
        return [line for what in ("--requires", "--recommends") for line in run(["rpm", "-qp", what, rpm]).splitlines()]

    def _dnf(self, *command: str) -> None:
        scratch = self._root.parent
        words = ["dnf", "--assumeyes", f"--installroot={self._root}", f"--forcearch={self._arch}", "--releasever=1"]
        words += ["--nogpgcheck", "--setopt=reposdir=/nonexistent", f"--setopt=cachedir={scratch / 'dnf'}"]
        for name, path in (("kubeedge", self._folder), ("stub", scratch / "stub")):
            words += [f"--repofrompath={name},{path}", f"--repo={name}"]
        log = scratch / "dnf.log"
        run(
            [*words, *command], environment=os.environ | {"HOME": "/root"}, log=log
        )  # whose home has Debian's rpm database
        if "scriptlet failed" in log.read_text():
            raise BuildFailed(f"a scriptlet failed:\n{log.read_text()}")


def _system(target: Architecture) -> Path:
    """Return a packed small Debian, made if it is not there. Raises BuildFailed."""
    archive = CACHE / f"debian-{target.debian}.tar"
    if not archive.is_file():
        say(f"make a Debian {_RELEASE} for {target.debian}")
        fresh = archive.with_suffix(".new.tar")
        words = ["mmdebstrap", f"--architectures={target.debian}", "--variant=minbase", f"--include={_INCLUDED}"]
        run([*words, _RELEASE, fresh, f"deb {MIRROR} {_RELEASE} main"])
        fresh.rename(archive)
    return archive


def _use(root: Path, wheel: str, kind: str) -> None:
    """Raises BuildFailed."""
    with (root / _CONFIGURATION).open("a") as file:
        file.write(_OURS)
    for name in LINKS:
        same(f"usage: {name}", output(root, [name, "--help"]))
    same("KubeEdge v", output(root, ["cloudcore", "--version"]))
    if "\nkubeedge:" not in (root / "etc/passwd").read_text():
        raise BuildFailed("the service's user is not there")
    if subprocess.run([*into(root), "systemctl", "is-enabled", "--quiet", "edgesite"], check=False).returncode == 0:
        raise BuildFailed("the site is enabled, though nobody asked for that")
    output(root, ["edgesite", "plugins", "install", f"/{wheel}"])
    same("twice 42", output(root, ["edgesite", "twice", "21"]))
    say(f"{kind}: answers to its names and loads a plugin in C")
    ready_s, memory = _site(root)
    say(
        f"{kind}: a site was Ready after {ready_s:.1f} s, {memory / 1e6:.1f} MB resident; kubectl made a pod, saw its log, ran a command in it"
    )


def _site(root: Path) -> tuple[float, int]:
    """Run a site with a pod, as the unit does. Raises BuildFailed."""
    address = f"127.0.0.1:{rig.free_port()}"
    argv = [*into(root), "/usr/bin/edgesite", "up", "--config", f"/{_CONFIGURATION}", "--api-address", address]
    try:
        with rig.Program(*argv[1:], *rig.UP_PORTS, program=Path(argv[0])) as site:
            ready_s, _ = site.wait_line("Ready after", _STARTS_S)
            _pod(root / "var/lib/kubeedge/admin.kubeconfig")
            (started,) = Path(f"/proc/{site.pid}/task/{site.pid}/children").read_text().split()
            memory = rig.usage(int(started)).rss
            os.kill(int(started), signal.SIGTERM)  # whom `unshare` waits for
            site.process.wait(_STARTS_S)
        if site.process.returncode:
            raise BuildFailed(f"the site ended with code {site.process.returncode}")
        return ready_s, memory
    except rig.BenchmarkFailed as exc:
        raise BuildFailed(str(exc)) from None


def _pod(kubeconfig: Path) -> None:
    """Raises BuildFailed."""

    def kube(*words: str, **more: Any) -> str:
        command = [kubectl("1.32"), f"--kubeconfig={kubeconfig}", "--request-timeout=120s", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
        if done.returncode:
            raise BuildFailed(f"kubectl {' '.join(words)}: {done.stderr}")
        return done.stdout

    kube("apply", "-f", "-", input=json.dumps(_POD))
    kube("wait", "pod", "works", "--for=condition=Ready", "--timeout=300s")
    same("hello\n", kube("logs", "works"))
    same("again\n", kube("exec", "works", "--", "echo", "again"))
    kube("delete", "pod", "works", "--wait=false")
    wait(lambda: not kube("get", "pods", "-o", "name"), "the pod's end")


def _is_removed(root: Path) -> None:
    """Raises BuildFailed."""
    gone = [root / one for one in ("usr/bin/edgesite", "usr/lib/systemd/system/edgesite.service")]
    left = [str(one) for one in (*gone, *root.glob("usr/lib/kubeedge/edgesite-*")) if os.path.lexists(one)]
    if left:
        raise BuildFailed(f"removal left {', '.join(left)}")
    kept = [root / _CONFIGURATION, root / f"{_CONFIGURATION}.rpmsave"]
    if not any(one.is_file() and one.read_text().endswith(_OURS) for one in kept):
        raise BuildFailed("removal took the configuration")
