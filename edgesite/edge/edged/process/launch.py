"""The child's side of starting a program: namespaces, mounts, limits, identity, exec. Standard library only.

Runs in a process that `supervisor` forked; it becomes the container's program or says on a pipe why it cannot. A plan is a dict:

    argv, env ({name: value}), cwd                  the program
    mounts [{source, target, readonly, shared}]     what it sees where; needs ``mounting``
    mounting                                        "root", "user" (a user namespace) or "" (none: no mounts are made)
    hostname                                        of its UTS namespace; only with ``mounting``
    uid, gid, groups                                None: as the supervisor
    cgroups [path of a cgroup.procs]                joined, each; a failure is an error
    rlimits [[number, soft, hard]], oom_score_adj, no_new_privileges, drop_capabilities [number]

A target that does not exist on the host is made without touching the host: the nearest directory above it is covered, in the
container's own mount namespace, by a tmpfs in which every entry of the directory is bound.

Errors  LaunchError and OSError, both told through the pipe.
Source  mount_namespaces(7), user_namespaces(7), mount(2), capabilities(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["LaunchError", "become", "can_mount", "join"]

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_MOVE, _MS_REC = 1, 32, 4096, 8192, 16384
_MS_UNBINDABLE, _MS_PRIVATE, _MS_SLAVE = 1 << 17, 1 << 18, 1 << 19
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
#: Flags of statvfs and those of mount that say the same: a remount in a user namespace must keep them.
_KEPT_FLAGS = ((2, 2), (4, 4), (8, 8), (1024, 1024), (2048, 2048), (4096, 1 << 21))
MAX_COVERED = 4096  #: Entries of a directory that is covered; more is refused, as each costs a mount.

_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """The program cannot be started; the text is for the container's status."""


def _call(name: str, *args: Any) -> None:
    if getattr(_libc, name)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    text = (None if one is None else os.fsencode(one) for one in (source, target, kind))
    try:
        _call("mount", *text, ctypes.c_ulong(flags), None if data is None else data.encode())
    except OSError as exc:
        raise LaunchError(f"cannot mount {source or kind or ''} at {target}: {os.strerror(exc.errno or 0)}") from exc


# ---- becoming the program -----------------------------------------------------------------------------------------------


def become(
    plan: dict[str, Any],
    directory: str,
    stdout: int,
    stderr: int,
    error_fd: int,
    stdin: int = -1,
    *,
    terminal: bool = False,
) -> NoReturn:
    """Turn this process into the plan's program; never returns. ``directory`` is the container's own, for what needs a place.
    Without ``stdin`` there is nothing to read; with ``terminal`` the three are one."""
    try:
        os.setsid()
        _plain_signals()
        _standard_streams(stdin, stdout, stderr, terminal)
        _limits(plan)
        if plan.get("mounting"):
            _namespaces(plan["mounting"])
            _Mounts(directory).make(plan.get("mounts", []))
            if plan.get("hostname"):
                _call("sethostname", plan["hostname"].encode(), len(plan["hostname"].encode()))
        _identity_and_exec(plan)
    except BaseException as exc:  # whatever it is, this process must not go on as a second supervisor
        _fail(exc, error_fd)


def join(
    plan: dict[str, Any],
    pid: int,
    argv: list[str],
    stdout: int,
    stderr: int,
    error_fd: int,
    stdin: int = -1,
    *,
    terminal: bool = False,
) -> NoReturn:
    """Turn this process into ``argv``, run inside the container whose main process is ``pid``; never returns."""
    try:
        os.setsid()
        _plain_signals()
        _standard_streams(stdin, stdout, stderr, terminal)
        _limits(plan)
        if plan.get("mounting"):
            _enter(pid, plan["mounting"])
        _identity_and_exec({**plan, "argv": argv})
    except BaseException as exc:
        _fail(exc, error_fd)


def _fail(exc: BaseException, error_fd: int) -> NoReturn:
    if isinstance(exc, OSError) and not isinstance(exc, LaunchError):
        text = f"{exc.strerror}: {exc.filename}" if exc.filename else str(exc.strerror or exc)
    else:
        text = str(exc) or type(exc).__name__
    try:
        os.write(error_fd, text.encode()[:2000])
    finally:
        os._exit(127)


def _plain_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _standard_streams(stdin: int, stdout: int, stderr: int, terminal: bool) -> None:
    os.dup2(stdin if stdin >= 0 else _nothing(), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _nothing() -> int:
    try:
        return os.open("/dev/null", os.O_RDWR)
    except FileNotFoundError:  # a root without devices
        reader, writer = os.pipe()
        os.close(writer)
        return reader


def _limits(plan: dict[str, Any]) -> None:
    os.umask(0o022)
    for path in plan.get("cgroups", ()):
        with open(path, "w") as file:
            file.write("0")
    for number, soft, hard in plan.get("rlimits", ()):
        _, most = resource.getrlimit(number)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(number, (soft, hard))
    if plan.get("oom_score_adj") is not None:
        # Lowering needs a privilege; what is wished is not worth a failure.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(plan["oom_score_adj"]))


def _identity_and_exec(plan: dict[str, Any]) -> NoReturn:
    try:
        os.chdir(plan["cwd"])
    except OSError as exc:
        raise LaunchError(f"cannot use working directory {plan['cwd']}: {exc.strerror}") from exc
    for number in plan.get("drop_capabilities", ()):
        _call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    if plan.get("groups") is not None:
        os.setgroups(plan["groups"])
    if plan.get("gid") is not None:
        os.setresgid(plan["gid"], plan["gid"], plan["gid"])
    if plan.get("uid") is not None:
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    if plan.get("no_new_privileges"):
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    argv, env = plan["argv"], plan["env"]
    # Not os.execvpe: that imports a module, which from within other mounts or as another user may be out of reach.
    folders = [""] if "/" in argv[0] else env.get("PATH", "").split(":")
    why: OSError | None = None
    for folder in folders:
        try:
            os.execve(os.path.join(folder, argv[0]), argv, env)
        except OSError as exc:
            if why is None or exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                why = exc
    raise LaunchError(f'exec: "{argv[0]}": {why.strerror if why else "not found"}') from why


# ---- namespaces -----------------------------------------------------------------------------------------------------------


def _namespaces(mounting: str) -> None:
    flags = _CLONE_NEWNS | _CLONE_NEWUTS
    if mounting == "root":
        _call("unshare", flags)
    else:
        uid, gid = os.getuid(), os.getgid()
        _call("unshare", flags | _CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    # Slave: what the host unmounts leaves here too, and nothing of ours reaches the host.
    _mount("none", "/", None, _MS_REC | _MS_SLAVE)


def _enter(pid: int, mounting: str) -> None:
    kinds = [("user", _CLONE_NEWUSER)] if mounting == "user" else []
    kinds += [("mnt", _CLONE_NEWNS), ("uts", _CLONE_NEWUTS)]
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY)
    found = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), flag) for name, flag in kinds]
    for fd, flag in found:
        _call("setns", fd, flag)
        os.close(fd)
    os.fchdir(root)
    os.chroot(".")
    os.close(root)


def can_mount() -> str:
    """Return how this process may give a program mounts of its own: "root", "user", or "" where the kernel allows neither."""
    for mounting in ("root", "user"):
        pid = os.fork()
        if pid == 0:
            try:
                _namespaces(mounting)
                _mount("tmpfs", "/proc", "tmpfs", 0, "size=4k")
                os._exit(0)
            except BaseException:
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            return mounting
    return ""


# ---- mounts -----------------------------------------------------------------------------------------------------------------


class _Mounts:
    """Makes the mounts of one container, in its own namespace."""

    def __init__(self, directory: str) -> None:
        self._staging = os.path.join(directory, "staging")
        self._ours: set[int] = set()  # devices of the tmpfs that cover directories
        self._volumes: list[str] = []

    def make(self, mounts: list[dict[str, Any]]) -> None:
        for mount in sorted(mounts, key=lambda one: one["target"].count("/")):
            # Opened before anything is covered, so that the source stays reachable whatever stands above it.
            source = os.open(mount["source"], os.O_PATH)
            try:
                self._one(mount, source)
            finally:
                os.close(source)

    def _one(self, mount: dict[str, Any], source: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = os.path.realpath(mount["target"])
        if target == "/":
            raise LaunchError("cannot mount over /")
        self._prepare(target, is_directory)
        _mount(f"/proc/self/fd/{source}", target, None, _MS_BIND | _MS_REC)
        if mount.get("readonly"):
            flags = os.statvfs(target).f_flag
            kept = sum(ours for theirs, ours in _KEPT_FLAGS if flags & theirs)
            _mount("none", target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)
        if not mount.get("shared"):
            _mount("none", target, None, _MS_PRIVATE | _MS_REC)
        self._volumes.append(target)

    def _prepare(self, target: str, is_directory: bool) -> None:
        """Make sure that ``target`` is there to be mounted on."""
        if os.path.exists(target):
            if os.path.isdir(target) != is_directory:
                raise LaunchError(f"cannot mount a {'directory' if is_directory else 'file'} over {target}")
            return
        above = os.path.dirname(target)
        while not os.path.isdir(above):
            if os.path.exists(above):
                raise LaunchError(f"cannot make {target}: {above} is no directory")
            above = os.path.dirname(above)
        in_volume = any(above == one or above.startswith(one + "/") for one in self._volumes)
        if not in_volume and os.stat(above).st_dev not in self._ours:
            self._cover(above)
        os.makedirs(target if is_directory else os.path.dirname(target), exist_ok=True)
        if not is_directory:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))

    def _cover(self, directory: str) -> None:
        """Put a tmpfs over ``directory`` that shows what it shows."""
        entries = list(os.scandir(directory))
        if len(entries) > MAX_COVERED:
            raise LaunchError(f"cannot make a mount point in {directory}: it has more than {MAX_COVERED} entries")
        new = os.path.join(self._staging, str(len(self._ours)))
        os.makedirs(new, exist_ok=True)
        mode = stat.S_IMODE(os.stat(directory).st_mode)
        _mount("tmpfs", new, "tmpfs", 0, f"size=1m,mode={mode:o}")
        _mount("none", new, None, _MS_UNBINDABLE)  # or binding what holds it would show it within itself
        for entry in entries:
            place = os.path.join(new, entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
                continue
            if entry.is_dir(follow_symlinks=False):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
            try:
                _mount(entry.path, place, None, _MS_BIND | _MS_REC)
            except LaunchError:
                if os.path.lexists(entry.path):
                    raise
                os.rmdir(place) if os.path.isdir(place) else os.unlink(place)  # it left meanwhile
        self._ours.add(os.stat(new).st_dev)
        if directory == "/":
            os.chroot(new)
            os.chdir("/")
        else:
            _mount(new, directory, None, _MS_MOVE)
