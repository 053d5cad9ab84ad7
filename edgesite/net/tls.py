"""TLS contexts: at least version 1.2, certificates from files or from memory, HTTP/1.1 by ALPN.

Errors  OSError and ssl.SSLError for files and certificates that cannot be used.
State   None. A PEM given as bytes reaches OpenSSL through an anonymous file in memory, never the disk.
Source  KubeEdge cloud/pkg/cloudhub/servers/server.go (versions and cipher that its ends accept); mallopt(3).
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["client_context", "renew", "server_context", "trim_allocator", "tune_allocator"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

#: A path to a PEM file, or its contents.
Pem = Path | bytes


def server_context(
    certificate: Pem,
    key: Pem,
    *,
    client_ca: Pem | None = None,
    require_client: bool = False,
    alpn: Sequence[str] = ("http/1.1",),
) -> ssl.SSLContext:
    """``client_ca`` asks clients for a certificate from it; ``require_client`` refuses those without one. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.num_tickets = 0  # each would hold the client's certificate; edges stay connected and come back rarely
    _load_chain(context, certificate, key)
    if client_ca is not None:
        _load_ca(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    elif require_client:
        raise ValueError("client certificates can only be required with a CA")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_context(
    *,
    ca: Pem | None = None,
    certificate: Pem | None = None,
    key: Pem | None = None,
    verify: bool = True,
    check_hostname: bool = True,
    alpn: Sequence[str] = ("http/1.1",),
) -> ssl.SSLContext:
    """``ca`` None trusts the system's. ``verify=False`` is for reading a CA that a token pins, and where KubeEdge itself does
    not verify. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = verify and check_hostname
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if verify:
        if ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            _load_ca(context, ca)
    if certificate is not None:
        _load_chain(context, certificate, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def renew(context: ssl.SSLContext, certificate: Pem, key: Pem, *, client_ca: Pem | None) -> None:
    """Show another certificate to who connects from now on, and trust another CA of clients besides. Raises OSError: what cannot be
    used changes nothing."""
    server_context(
        certificate, key, client_ca=client_ca
    )  # a context that was given half of a pair serves nobody any more
    _load_chain(context, certificate, key)
    if client_ca is not None:
        _load_ca(context, client_ca)


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.hostname_checks_common_name = False  # a common name is who a client is, never where a server is


def _load_ca(context: ssl.SSLContext, ca: Pem) -> None:
    if isinstance(ca, bytes):
        context.load_verify_locations(cadata=ca.decode("ascii"))
    else:
        context.load_verify_locations(cafile=ca)


def _load_chain(context: ssl.SSLContext, certificate: Pem, key: Pem | None) -> None:
    with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
        assert certificate_path is not None
        context.load_cert_chain(certificate_path, key_path)


@contextlib.contextmanager
def _as_file(pem: Pem | None) -> Iterator[str | None]:
    """Give a path to read ``pem`` from: OpenSSL's loader takes files only."""
    if pem is None or isinstance(pem, Path):
        yield None if pem is None else str(pem)
        return
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(pem)
        file.flush()
        yield file.name


def tune_allocator() -> bool:
    """Keep large freed buffers in the process: each TLS read takes 256 KiB and gives most of it back, which glibc would map
    and unmap every time. Call once at start. Returns whether the C library took it."""
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 20)) and bool(mallopt(_M_TRIM_THRESHOLD, 8 << 20))


def trim_allocator() -> bool:
    """Give all that is free back to the system, whatever `tune_allocator` keeps. Takes some milliseconds. Returns whether there was anything."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError):  # another C library
        return False
