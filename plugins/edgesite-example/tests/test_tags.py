"""What ``require-tags`` refuses. A vendor runs this beside the conformance kit, see docs/plugins.md."""

from __future__ import annotations

import pytest
from edgesite_example.tags import STRICT, RequireTags

from edgesite.hookspecs import AdmissionRequest
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import Resource

PODS = Resource("", "v1", "Pod", "pods")


def create(image: str, namespace: str = STRICT) -> AdmissionRequest:
    pod = {"spec": {"containers": [{"name": "main", "image": image}]}}
    return AdmissionRequest("CREATE", PODS, "", namespace, "one", "someone", (), pod, None)


@pytest.mark.parametrize("image", ["web:1.2", "registry.example:5000/web:1", "web@sha256:" + "0" * 64])
def test_tags_and_digests_are_taken(image: str) -> None:
    RequireTags().admit(create(image))


@pytest.mark.parametrize("image", ["web", "registry.example:5000/web"])
def test_an_image_without_a_tag_is_refused_by_name(image: str) -> None:
    with pytest.raises(ApiError, match=f"container main: image {image} has no tag"):
        RequireTags().admit(create(image))
    RequireTags().admit(create(image, namespace="default"))
