"""EdgeHub: the edge's connection to CloudHub, and the certificates that it needs."""

from edgesite.edge.edgehub.link import Link

__all__ = ["Link"]
