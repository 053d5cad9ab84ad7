"""Resource strings: what a hub message is about, as slash-separated segments.

    default/pod/web-0               on the wire: namespace, type word, name
    default/pod                     on the wire: all of a type
    node/edge1/default/pod/web-0    between cloud modules: the node comes first

Cluster-scoped objects have the namespace word "null"; requests of a v1.12 edge for nodes, persistent volumes and volume
attachments say "default" instead. Strings of any other shape (``membership/detail``, ``device/<id>/twin/cloud_updated``)
are legal and have neither namespace, type nor name.

Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/dispatcher (the node in front, and its removal).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["NO_NAMESPACE", "ResourcePath", "add_node", "build", "is_path_part", "node_of", "parse", "trim_node"]

NO_NAMESPACE = "null"  #: namespace word of cluster-scoped objects


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """A resource string in parts; a part that the string does not have is ""."""

    namespace: str = ""
    type: str = ""
    name: str = ""

    @property
    def object_namespace(self) -> str:
        """The namespace for the API: "" for the word of cluster-scoped objects."""
        return "" if self.namespace == NO_NAMESPACE else self.namespace

    def __str__(self) -> str:
        return build(self.namespace, self.type, self.name)


def build(namespace: str, type: str, name: str = "", *, node: str = "") -> str:
    """Return the string; an empty ``namespace`` becomes the word for cluster-scoped objects, an empty ``name`` means all."""
    segments = [namespace or NO_NAMESPACE, type]
    if name:
        segments.append(name)
    if node:
        segments[:0] = ["node", node]
    return "/".join(segments)


def parse(resource: str) -> ResourcePath:
    """Take apart a string in wire form (without a node). A string of any other shape gives an empty path."""
    segments = resource.split("/")
    if len(segments) == 3:
        return ResourcePath(*segments)
    if len(segments) == 2:
        return ResourcePath(segments[0], segments[1])
    return ResourcePath()


def trim_node(resource: str) -> str:
    """Cut ``node/<node>/`` off the front, as is done before a message leaves for the edge."""
    if not resource.startswith("node"):
        return resource
    segments = resource.split("/", 2)
    return segments[2] if len(segments) == 3 else resource


def add_node(node: str, resource: str) -> str:
    """Put ``node/<node>/`` in front, as the cloud does with what an edge sent."""
    return f"node/{node}/{resource}"


def node_of(resource: str) -> str:
    """Return the node that a string of the cloud speaks of: what follows the first segment "node"; "" if there is none."""
    segments = resource.split("/")
    for at, segment in enumerate(segments[:-1]):
        if segment == "node" and segments[at + 1]:
            return segments[at + 1]
    return ""


_PATH_PART: Final = re.compile(r"[!-~]+").fullmatch
_PATH_MARKS: Final = re.compile(r"[/%?#\\]").search


def is_path_part(text: str) -> bool:
    """Whether a peer's word may stand between two slashes of a URL without changing what the URL is about."""
    return bool(_PATH_PART(text)) and not _PATH_MARKS(text) and text not in (".", "..")
