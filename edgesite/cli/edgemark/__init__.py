"""``edgesite edgemark``: thousands of hollow edge nodes in one process, that speak the real protocol to a real cloud role."""

from edgesite.cli.edgemark.command import COMMAND

__all__ = ["COMMAND"]
