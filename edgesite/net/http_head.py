"""Judges the head of a request by what decides where it ends and whom it is for: one that two servers could read in two ways is refused.

    Host                one line, with a host and perhaps a port; HTTP/1.0 may leave it out
    Transfer-Encoding   "chunked" alone, in HTTP/1.1 alone, and never beside a Content-Length
    Content-Length      one value, though it may be repeated
    upgrades            have no body: it would be taken for the first bytes of the other protocol

A target in absolute form counts more than Host (`host_of_target`). The parsers see to the rest: characters, line ends, white space.

Errors  None: `fault` tells status and reason.
State   None.
Source  RFC 9112: 2.3 (version), 3.2 and 3.2.2 (Host), 6.1 and 6.3 (framing); RFC 9110: 7.8 (Upgrade), 15.6.2 (501); RFC 3986 3.2 (authority).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["fault", "host_of_target"]

Lines = list[tuple[bytes, bytes]]
Fault = tuple[int, str]
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.%\-_~A-Za-z]*\]|[0-9A-Za-z\-._~!$&'()*+,;=%]*)(?::[0-9]*)?").fullmatch
_AUTHORITY: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://([^/?#]*)").match


def host_of_target(target: bytes) -> bytes | None:
    """Return the authority of a target in absolute form; None for any other form."""
    found = None if target[:1] == b"/" else _AUTHORITY(target)
    return None if found is None else found[1]


def fault(version: str, lines: Lines, *, upgrades: bool) -> Fault | None:
    """Return status and reason of a refusal; None for a head that can be meant in one way only. ``upgrades``: it asks for another protocol."""
    hosts = 0
    length: bytes | None = None
    coding: bytes | None = None
    for name, value in lines:
        size = len(name)
        if size == 4:
            if name.lower() == b"host":
                hosts += 1
                if not _HOST(value):
                    return 400, "the Host header names no host"
        elif size == 14:
            if name.lower() == b"content-length":
                value = value.strip(b" \t")
                if length is not None and length != value:
                    return 400, "there are several Content-Length headers"
                length = value
        elif size == 17 and name.lower() == b"transfer-encoding":
            if coding is not None:
                return 400, "there are several Transfer-Encoding headers"
            coding = value.strip(b" \t").lower()
    if hosts != 1:
        if hosts:
            return 400, "there are several Host headers"
        if version != "1.0":
            return _version_fault(version) or (400, "the Host header is missing")
    if coding is not None and (found := _coding_fault(version, coding, length)):
        return found
    if upgrades and (coding is not None or (length or b"0").strip(b"0")):
        return 400, "a request for another protocol has no body here"
    return _version_fault(version)


def _version_fault(version: str) -> Fault | None:
    return None if version in ("1.1", "1.0") else (505, "HTTP/1.1 is spoken here")


def _coding_fault(version: str, coding: bytes, length: bytes | None) -> Fault | None:
    if length is not None:
        return 400, "there are both a Content-Length and a Transfer-Encoding header"
    if version == "1.0":
        return 400, "HTTP/1.0 has no Transfer-Encoding"
    if coding != b"chunked":
        return 501, "of transfer codings only chunked is understood"
    return None
