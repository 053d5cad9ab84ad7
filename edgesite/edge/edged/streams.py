"""Streams into containers: what is asked of a runtime, and where it then waits for whoever connects.

As in CRI, a runtime answers with the address of an HTTP server of its own, which upgrades to SPDY/3.1 and speaks Kubernetes' stream protocols
(`v4.channel.k8s.io`, `portforward.k8s.io`). The kubelet API connects a client to it: so containerd's server and that of the process
runtime are used in one way, and SPDY bytes pass through unchanged.

Errors  RuntimeFault, as of `edgesite.edge.edged.runtime`.
Source  k8s.io/cri-api runtime/v1: Exec, Attach, PortForward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from edgesite.edge.edged.faults import RuntimeUnsupported
from edgesite.net import address

__all__ = ["StreamAddress", "StreamOptions", "Streams"]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams are wanted. With ``tty`` stderr comes through stdout."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Where a runtime waits for one client: good for one connection, made soon."""

    address: str  #: for ``ctx.net.connect``
    target: str  #: path and query

    @classmethod
    def of_url(cls, url: str) -> StreamAddress:
        """Raises RuntimeUnsupported."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise RuntimeUnsupported(f"the container runtime streams over {parts.scheme or 'nothing'}, not over http")
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return cls(address.join(parts.hostname, parts.port or 80), target)


class Streams(Protocol):
    """The part of a runtime that is about streams. Each call prepares one; nothing runs until somebody connects."""

    async def exec(self, container_id: str, command: Sequence[str], options: StreamOptions) -> StreamAddress:
        """Run a command in a running container. Raises NotInRuntime, RuntimeUnsupported."""
        ...

    async def attach(self, container_id: str, options: StreamOptions) -> StreamAddress:
        """Join the main process's own streams. Raises NotInRuntime, RuntimeUnsupported."""
        ...

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> StreamAddress:
        """Connect to ports inside a sandbox; clients name each port again. Raises NotInRuntime, RuntimeUnsupported."""
        ...
