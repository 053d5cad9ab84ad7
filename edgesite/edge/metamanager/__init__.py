"""MetaManager: what the edge knows, on its own disk; queries to the cloud and reports to it that survive a lost link."""

from edgesite.edge.metamanager.meta import Meta

__all__ = ["Meta"]
