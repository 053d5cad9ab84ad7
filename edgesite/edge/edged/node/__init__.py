"""The Node object: registered once, reported when it changes, kept alive by a lease."""

from edgesite.edge.edged.node.agent import NodeAgent

__all__ = ["NodeAgent"]
