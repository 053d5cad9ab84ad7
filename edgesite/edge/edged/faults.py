"""What a container runtime's calls may raise; the tree is shown in `edgesite.edge.edged.runtime`, which hands these on."""

from __future__ import annotations

__all__ = [
    "DeadlineReached",
    "InvalidReference",
    "NotInRuntime",
    "RuntimeFault",
    "RuntimeUnavailable",
    "RuntimeUnsupported",
]


class RuntimeFault(Exception):
    """A call that the runtime refused or could not finish; the text is the runtime's own, fit for an event."""


class RuntimeUnavailable(RuntimeFault):
    """The runtime does not answer. Nothing is known about what became of the call."""


class NotInRuntime(RuntimeFault):
    """The sandbox, container or image does not exist."""


class RuntimeUnsupported(RuntimeFault):
    """The runtime does not have this call."""


class InvalidReference(RuntimeFault):
    """The text cannot be the name of an image."""


class DeadlineReached(RuntimeFault):
    """The runtime took too long."""
