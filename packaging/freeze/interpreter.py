"""OpenSSL and CPython, built in the root from Debian's sources into /opt/python.

The root's own OpenSSL (1.1.1) and Python (3.9) are past their end; Debian 12's Python and Debian 13's OpenSSL get security fixes.
Both are built without profiling, so that the same source gives the same bits.

Errors  BuildFailed.
State   In the root. ``/opt/python/.made-NAME`` tells the version and the recipe.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

from command import inside, say
from layout import CACHE, Architecture
from sources import Source, fetch, unpack

__all__ = ["PREFIX", "PYTHON", "make"]

PREFIX: Final = "/opt/python"
PYTHON: Final = f"{PREFIX}/bin/python3.11"
_RECIPES: Final = {"openssl": 2, "python": 3}  #: Raise one when its part below changes.
_PYTHON_SUITE: Final = "bookworm"
_OPENSSL_SUITE: Final = "trixie"
#: Patches that fit Python into Debian's file layout, or touch only its tests and documents. All others are fixes.
_DISTRIBUTION_PATCHES: Final = frozenset(
    f"{name}.diff"
    for name in [
        "deb-setup",
        "deb-locations",
        "distutils-install-layout",
        "locale-module",
        "distutils-link",
        "distutils-sysconfig",
        "sysconfig-debian-schemes",
        "tkinter-import",
        "gdbm-import",
        "link-opt",
        "setup-modules",
        "profiled-build",
        "langpack-gettext",
        "disable-sem-check",
        "lib-argparse",
        "ctypes-arm",
        "multiarch",
        "lib2to3-no-pickled-grammar",
        "ext-no-libpython-link",
        "test-no-random-order",
        "multiarch-extname",
        "tempfile-minimal",
        "disable-some-tests",
        "ensurepip-disabled",
        "mangle-fstack-protector",
        "reproducible-buildinfo",
        "pydoc-use-pager",
        "local-doc-references",
        "doc-build-texinfo",
        "argparse-no-shutil",
        "sysconfigdata-name",
        "hurd_kfreebsd_thread_native_id",
        "sphinx3",
        "destshared-location",
    ]
) | {"skip-xml-tests-expat-CVE-2023-52425.patch"}
#: No weak or forgotten ciphers, no engines: fewer parts in the file and less to attack. SM2, SM3 and SM4 stay.
_OPENSSL_OPTIONS: Final = [
    "shared",
    "no-tests",
    "no-docs",
    "no-apps",
    "no-module",
    "no-legacy",
    "no-engine",
    "no-comp",
    "no-idea",
    "no-seed",
    "no-camellia",
    "no-aria",
    "no-bf",
    "no-cast",
    "no-rc2",
    "no-rc4",
    "no-md4",
    "no-mdc2",
    "no-whirlpool",
    "no-gost",
    "no-srp",
    "no-ssl3",
    "no-dtls",
    "no-sctp",
    "no-cms",
    "no-ts",
    "no-cmp",
    "no-quic",
]
#: Debian builds this one into its interpreter, and a fix of its relies on that.
_SETUP: Final = "*shared*\npyexpat pyexpat.c -DPy_BUILD_CORE_MODULE -lexpat\n"
_CFLAGS: Final = "-O2 -g0 -fno-semantic-interposition -ffile-prefix-map=/build=."


def make(target: Architecture) -> dict[str, str]:
    """Return the versions of what is in the root, built if it is not. Raises BuildFailed."""
    prefix = target.root / PREFIX.lstrip("/")
    log = CACHE / f"interpreter-{target.name}.log"
    versions = {}
    for name, build in (("openssl", _build_openssl), ("python", _build_python)):
        stamp = prefix / f".made-{name}"
        made = json.loads(stamp.read_text()) if stamp.is_file() else {}
        if made.get("recipe") != _RECIPES[name]:
            made = {"recipe": _RECIPES[name], "version": build(target, log).version}
            stamp.write_text(json.dumps(made))
        versions[name] = made["version"]
    return versions


def _build_openssl(target: Architecture, log: Path) -> Source:
    source, files = fetch("openssl", _OPENSSL_SUITE)
    say(f"build OpenSSL {source.version}, some minutes")
    tree = _tree(target, "openssl")
    unpack(files, tree, frozenset())
    environment = _environment()
    configure = [
        "perl",
        "Configure",
        target.openssl,
        f"--prefix={PREFIX}",
        f"--libdir={PREFIX}/lib",
        "--openssldir=/etc/ssl",
        *_OPENSSL_OPTIONS,
        "-g0",
    ]
    inside(target.root, configure, cwd="/build/openssl", environment=environment, log=log)
    shared = ["LIBS=", "INSTALL_LIBS="]  # the static libraries are half of the work
    inside(
        target.root, ["make", _jobs(), "build_libs", *shared], cwd="/build/openssl", environment=environment, log=log
    )
    inside(target.root, ["make", "install_dev", *shared], cwd="/build/openssl", environment=environment, log=log)
    shutil.rmtree(tree)
    return source


def _build_python(target: Architecture, log: Path) -> Source:
    source, files = fetch("python3.11", _PYTHON_SUITE)
    say(f"build CPython {source.version}, some minutes")
    tree = _tree(target, "python")
    unpack(files, tree, _DISTRIBUTION_PATCHES)
    (tree / "Modules/Setup.local").write_text(_SETUP)
    makefile = tree / "Makefile.pre.in"  # compiled modules are not needed: PyInstaller compiles what it packs
    makefile.write_text(makefile.read_text().replace("$(DESTDIR)$(LIBDEST)/compileall.py", "-c pass"))
    # Found by the loader's configuration and not by a path in the files: these are going to another place.
    (target.root / "etc/ld.so.conf.d/edgesite.conf").write_text(f"{PREFIX}/lib\n")
    inside(target.root, ["ldconfig"], log=log)
    environment = _environment() | {"CFLAGS": _CFLAGS, "LDFLAGS": f"-L{PREFIX}/lib -fno-semantic-interposition"}
    configure = [
        "./configure",
        f"--prefix={PREFIX}",
        "--enable-shared",
        f"--with-openssl={PREFIX}",
        "--with-ssl-default-suites=openssl",
        "--with-readline=editline",
        "--with-system-expat",
        "--with-ensurepip=install",
        "--disable-test-modules",
        "ac_cv_posix_semaphores_enabled=yes",  # the test looks for /dev/shm, which the build root does not have
        "ac_cv_broken_sem_getvalue=no",
    ]
    inside(target.root, configure, cwd="/build/python", environment=environment, log=log)
    inside(target.root, ["make", _jobs()], cwd="/build/python", environment=environment, log=log)
    inside(target.root, ["make", "install"], cwd="/build/python", environment=environment, log=log)
    inside(target.root, ["ldconfig"], log=log)
    shutil.rmtree(tree)
    return source


def _tree(target: Architecture, name: str) -> Path:
    tree = target.root / "build" / name
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(exist_ok=True)
    return tree


def _environment() -> dict[str, str]:
    return {"SOURCE_DATE_EPOCH": "1704067200", "PYTHONHASHSEED": "0"}  # fixed: the interpreter is older than any commit


def _jobs() -> str:
    return f"-j{os.cpu_count() or 1}"
