"""The disks of the virtual machine: a small Debian, made once, and the program with what it requires, made for each run.

    base disk       Debian 12 with systemd, containerd, NFS and a kernel, by mmdebstrap; kept in .cache/peers under the hash of what it has
    program disk    /opt/edgesite: lib (this interpreter's packages that edgesite requires, and edgesite), src (conformance, benchmarks)

Errors  ImageError: a tool is missing or has failed, or this interpreter's packages do not fit Debian's Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

__all__ = ["Base", "ImageError", "base", "program"]

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
CACHE: Final = _ROOT / ".cache" / "peers"
RELEASE: Final = "bookworm"
PYTHON: Final = (3, 11)  #: of that release
MIRROR: Final = "http://deb.debian.org/debian"
PACKAGES: Final = (
    *("busybox-static", "ca-certificates", "containerd", "containernetworking-plugins", "dbus", "iproute2", "iptables"),
    *("kmod", "linux-image-cloud-amd64", "nfs-common", "nfs-kernel-server", "procps", "python3", "runc"),
    *("systemd", "systemd-sysv", "udev"),
)
_SIZE_MIB: Final = 3000
_MASKED: Final = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "containerd.service", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "getty@tty1.service", "nfs-server.service", "serial-getty@ttyS0.service"),
)
_FILES: Final = {
    "etc/hostname": "vm\n",
    "etc/machine-id": "5d1f0c3a9e6b4d7f8a2c1b0e9f8d7c6a\n",
    "etc/hosts": "127.0.0.1 localhost vm\n",
    "etc/systemd/journald.conf.d/console.conf": "[Journal]\nForwardToConsole=yes\nMaxLevelConsole=warning\nTTYPath=/dev/ttyS0\n",
    "etc/fstab": "/dev/vdb /opt/edgesite ext4 ro,noload,nofail 0 0\n",
    "usr/local/lib/python3.11/dist-packages/edgesite.pth": "/opt/edgesite/lib\n",
    "usr/bin/edgesite": "#!/usr/bin/python3 -I\nimport sys\n\nfrom edgesite.cli.main import main\n\nsys.exit(main())\n",
    "etc/systemd/system/conformance.service": """\
[Unit]
Description=What a host must show
After=dbus.service systemd-logind.service local-fs.target

[Service]
WorkingDirectory=/opt/edgesite/src
ExecStart=/usr/bin/python3 -m conformance.machine.inside
StandardOutput=append:/var/log/conformance.log
StandardError=inherit
Delegate=yes
TimeoutStopSec=20

[Install]
WantedBy=multi-user.target
""",
}


class ImageError(RuntimeError):
    """The machine cannot be made."""


class Base:
    """The folder with a disk (``root.img``), the kernel and its first file system."""

    def __init__(self, folder: Path) -> None:
        self.disk, self.kernel, self.initrd = (folder / name for name in ("root.img", "vmlinuz", "initrd"))


def base() -> Base:
    """Return the base disk, made if it is not here yet. Raises ImageError."""
    content = repr((RELEASE, PACKAGES, _SIZE_MIB, _MASKED, sorted(_FILES.items())))
    target = CACHE / f"vm-{RELEASE}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".vm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            new = target.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            _make_base(new)
            new.rename(target)
    return Base(target)


def _make_base(folder: Path) -> None:
    root = folder / "root"
    words = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(PACKAGES)}"]
    _call(*words, "--aptopt=APT::Install-Recommends false", RELEASE, str(root), MIRROR)
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/bin/edgesite").chmod(0o755)
    (root / "opt/edgesite").mkdir()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    for unit in _MASKED:
        (root / "etc/systemd/system" / unit).unlink(missing_ok=True)
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "conformance.service").symlink_to("/etc/systemd/system/conformance.service")
    for name in ("vmlinuz", "initrd"):
        (found,) = (root / "boot").glob(f"{name}*")
        shutil.copy(found, folder / name)
    _disk(root, folder / "root.img", "root", _SIZE_MIB)
    shutil.rmtree(root)


def program(folder: Path, kubectl: Path) -> Path:
    """Write the program's disk into ``folder`` and return it. Raises ImageError."""
    if sys.version_info[:2] != PYTHON:
        raise ImageError(
            f"the packages of this Python {sys.version_info[0]}.{sys.version_info[1]} do not run on {PYTHON}"
        )
    root = folder / "program"
    for dist in _requirements():
        for file in dist.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = root / "lib" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(dist.locate_file(file)), target)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".bench-*")
    shutil.copytree(_ROOT / "edgesite", root / "lib" / "edgesite", ignore=ignore)
    _install(root / "lib")
    for name in ("conformance", "benchmarks", "tests"):
        shutil.copytree(_ROOT / name, root / "src" / name, ignore=ignore)
    (root / "bin").mkdir()
    shutil.copy(kubectl, root / "bin" / "kubectl")
    disk = folder / "program.img"
    size = sum(one.stat().st_size for one in root.rglob("*") if one.is_file()) // (1 << 20)
    _disk(root, disk, "program", size * 5 // 4 + 64)
    shutil.rmtree(root)
    return disk


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    return found


def _install(lib: Path) -> None:
    """Write what tells of edgesite as it stands in the source: its entry points above all."""
    project = _project()
    folder = lib / f"edgesite-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: edgesite\nVersion: {project['version']}\n")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {at}\n" for name, at in rows.items()) for group, rows in groups.items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))


def _requirements() -> list[metadata.Distribution]:
    """What edgesite requires, all of it. Raises ImageError."""
    found: dict[str, metadata.Distribution] = {}
    waiting = ["pytest", *(Requirement(text).name for text in _project()["dependencies"])]  # edgesite.testing wants it
    while waiting:
        key = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if key in found:
            continue
        try:
            found[key] = metadata.distribution(key)
        except metadata.PackageNotFoundError as exc:
            raise ImageError(f"{key} is not installed here") from exc
        for text in found[key].requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name)
    return list(found.values())


def _disk(root: Path, disk: Path, label: str, size_mib: int) -> None:
    _call("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-L", label, "-d", str(root), str(disk), f"{size_mib}M")


def _call(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise ImageError(f"{words[0]} is not installed") from exc
    except subprocess.CalledProcessError as exc:
        raise ImageError(f"{words[0]}: {exc.stderr[-2000:]}") from exc
