"""What of a write that is permitted to a node the node may say."""

from __future__ import annotations

import pytest

from edgesite.cloud.cloudhub.identities import BARRED
from edgesite.cloud.edgecontroller.authorize import node_metadata, node_patch, pod_patch
from edgesite.wire.message import InvalidMessage

RESERVED = {"node-restriction.kubernetes.io/zone": "secure", "sub.node-restriction.kubernetes.io/x": "y"}


def test_of_a_pod_its_status_alone() -> None:
    metadata = {"uid": "u", "labels": {"app": "db"}, "finalizers": ["stay"], "ownerReferences": []}
    patch = {"$patch": "replace", "metadata": metadata, "status": {"phase": "Running"}, "spec": {"hostNetwork": True}}
    assert pod_patch(patch) == {"metadata": {"uid": "u"}, "status": {"phase": "Running"}}
    assert pod_patch({}) == {"metadata": {}}


def test_of_itself_nothing_that_others_decide() -> None:
    metadata = {
        "name": "n",
        "labels": RESERVED | {"a": "b"},
        "annotations": {"c": "d", BARRED: "false"},
        "finalizers": ["stay"],
    }
    assert node_metadata(metadata) == {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    assert node_patch({"metadata": metadata, "status": {}, "spec": {"taints": []}}) == {
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "status": {},
    }


@pytest.mark.parametrize("patch", [[], "x", None, {"metadata": []}])
def test_what_is_no_patch_is_refused(patch: object) -> None:
    for read in (pod_patch, node_patch):
        with pytest.raises(InvalidMessage):
            read(patch)
