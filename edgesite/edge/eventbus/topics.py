"""What EventBus subscribes to, and which module gets what is published there.

Source  KubeEdge v1.12.7, edge/pkg/eventbus/mqtt (topics, routing); v1.17 for devices with a namespace in front of their name.
"""

from __future__ import annotations

import base64
import re
from typing import Final

__all__ = ["FIXED", "auth_topic", "belongs_to_twin", "resource_of"]

#: As KubeEdge; the two with one level more are those of v1.17 and later.
FIXED: Final = (
    "$hw/events/upload/#",
    "$hw/events/device/+/state/update",
    "$hw/events/device/+/twin/+",
    "$hw/events/device/+/+/state/update",
    "$hw/events/device/+/+/twin/+",
    "$hw/events/node/+/membership/get",
    "SYS/dis/upload_records",
    "+/user/#",
)
_TWIN: Final = re.compile(r"\$hw/events/(device|node)(/|$)")


def belongs_to_twin(topic: str) -> bool:
    """Whether DeviceTwin gets it; the cloud gets all else."""
    return _TWIN.match(topic) is not None


def resource_of(topic: str) -> str:
    """Return the resource by which DeviceTwin gets a topic: its Base64, for it has slashes."""
    return base64.urlsafe_b64encode(topic.encode()).decode()


def auth_topic(node: str) -> str:
    return f"$hw/events/node/{node}/authInfo/get/result"
