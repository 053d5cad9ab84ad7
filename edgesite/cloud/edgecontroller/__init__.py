"""EdgeController: what edges need goes down, what they report goes up."""

from edgesite.cloud.edgecontroller.objects import EdgeObjects

__all__ = ["EdgeObjects"]
