"""The journal's native protocol: a log record as fields in one datagram, or in a sealed memfd where it is too big for one.

Fields  MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, LOGGER, MODULE, NODE (of an edge role), EXCEPTION (the class), CODE_FILE,
        CODE_LINE, CODE_FUNC. ``journalctl -u edgecore MODULE=edgehub``, ``-o json`` and ``-p warning`` use them.
Errors  `Journal.send`: OSError where the journal is not there.
Source  systemd's documents JOURNAL_NATIVE_PROTOCOL and systemd.exec(5) ($JOURNAL_STREAM).
"""

from __future__ import annotations

import array
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

from edgesite.runtime.logtext import one_line

__all__ = ["SOCKET", "Journal", "fields_of", "is_stream", "module_of", "serialise"]

SOCKET: Final = "/run/systemd/journal/socket"
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7
_ROLES: Final = frozenset({"cloud", "controlplane", "edge"})  #: packages that hold modules; the others are modules
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_FORMATTER: Final = logging.Formatter()


def is_stream(fd: int, environment: Mapping[str, str]) -> bool:
    """Whether the descriptor is the stream to the journal that systemd has given this process."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def module_of(logger: str) -> str:
    """The module that a logger's name speaks of: edgesite.edge.edgehub.link is edgehub's."""
    parts = logger.removeprefix("edgesite.").split(".")
    return parts[1] if parts[0] in _ROLES and len(parts) > 1 else parts[0]


def fields_of(record: logging.LogRecord, identifier: str) -> dict[str, str]:
    """What the journal is told of a record. The traceback follows the message, as in other logs."""
    name = record.name.removeprefix("edgesite.")
    fields = {
        "MESSAGE": f"{name}: {one_line(record.getMessage())}",
        "PRIORITY": str(next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)),
        "SYSLOG_IDENTIFIER": identifier,
        "LOGGER": record.name,
        "MODULE": module_of(record.name),
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
    if node := getattr(record, "node", ""):
        fields["NODE"] = node
    if record.exc_info and record.exc_info[0] is not None:
        fields["EXCEPTION"] = record.exc_info[0].__name__
        fields["MESSAGE"] += "\n" + _FORMATTER.formatException(record.exc_info)
    return fields


def serialise(fields: Mapping[str, str]) -> bytes:
    """The datagram: NAME=value lines, or with a line end in the value NAME, its length and the bytes."""
    out = bytearray()
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")
        if b"\n" in value:
            out += name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
        else:
            out += name.encode() + b"=" + value + b"\n"
    return bytes(out)


class Journal:
    """Sends entries, from one thread. A journal that restarts is found again: the socket stays unconnected."""

    def __init__(self, address: str = SOCKET) -> None:
        """Raises OSError if there is no journal."""
        os.stat(address)
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, entry: bytes) -> None:
        """Waits while the journal's queue is full. Raises OSError."""
        try:
            self._socket.sendto(entry, self._address)
        except OSError as exc:
            if exc.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_file(entry)

    def _send_file(self, entry: bytes) -> None:
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            rest = memoryview(entry)
            while rest:
                rest = rest[os.write(fd, rest) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            self._socket.sendmsg([], rights, 0, self._address)
        finally:
            os.close(fd)

    def close(self) -> None:
        self._socket.close()
