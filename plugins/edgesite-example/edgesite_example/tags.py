"""Admission ``require-tags``: in the namespace `STRICT`, an image without tag or digest is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.kube.errors import forbidden

if TYPE_CHECKING:
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.kube.resources import Resource

STRICT: Final = "edgesite-example-strict"


class RequireTags:
    name = "require-tags"
    mutating = False

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.plural == "pods" and not subresource and operation in ("CREATE", "UPDATE")

    def admit(self, request: AdmissionRequest) -> None:
        if request.namespace != STRICT or request.object is None:
            return
        spec = request.object.get("spec") or {}
        for container in [*spec.get("initContainers", ()), *spec.get("containers", ())]:
            image = container.get("image", "")
            if "@" not in image and ":" not in image.rpartition("/")[2]:
                raise forbidden("pods", request.name, f"container {container.get('name')}: image {image} has no tag")
