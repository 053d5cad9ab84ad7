"""The resource table and discovery documents made from it."""

import pytest

from edgesite.kube import discovery, resources
from edgesite.kube.resources import BUILTIN, Resource, ResourceTable


def test_rows_are_found_by_plural_and_by_kind() -> None:
    table = ResourceTable(BUILTIN)
    assert table.find("apps", "v1", "deployments") is resources.DEPLOYMENTS
    assert table.of_kind("", "v1", "Pod") is resources.PODS
    assert table.of_api_version("apps/v1", "Deployment") is resources.DEPLOYMENTS
    assert table.of_api_version("v1", "Pod") is resources.PODS
    assert table.find("apps", "v1beta1", "deployments") is None
    assert len(table) == len(BUILTIN)


def test_rows_can_be_added_and_removed_but_not_doubled() -> None:
    table = ResourceTable(BUILTIN)
    row = Resource("example.com", "v1", "Thing", "things")
    table.add(row)
    assert table.of_kind("example.com", "v1", "Thing") is row
    with pytest.raises(ValueError, match="is served already"):
        table.add(row)
    table.remove(row)
    table.remove(row)
    assert table.find("example.com", "v1", "things") is None


def test_views_name_the_row_that_stores_their_objects() -> None:
    table = ResourceTable(BUILTIN)
    assert table.stored(resources.EVENTS_V1) is resources.EVENTS
    assert table.stored(resources.PODS) is resources.PODS
    for row in BUILTIN:
        assert row.stored_as is None or table.find(*row.stored_as) is not None


def test_names_that_follow_from_a_row() -> None:
    assert resources.PODS.list_name == "PodList"
    assert resources.ENDPOINTS.list_name == "EndpointsList"
    assert resources.ENDPOINTS.singular_name == "endpoints"
    assert resources.DEPLOYMENTS.group_resource == "deployments.apps"
    assert resources.DEPLOYMENTS.path("ns", "a", "scale") == "/apis/apps/v1/namespaces/ns/deployments/a/scale"
    assert resources.NODES.path(None, "n") == "/api/v1/nodes/n"


def test_field_labels_lead_to_stored_fields() -> None:
    assert resources.PODS.field_paths["spec.nodeName"] == "spec.nodeName"
    assert resources.EVENTS_V1.field_paths["regarding.name"] == "involvedObject.name"
    assert "metadata.namespace" not in resources.NODES.field_paths


def test_legacy_discovery_of_the_core_group() -> None:
    document = discovery.resource_list(BUILTIN, "", "v1")
    assert document["groupVersion"] == "v1"
    by_name = {one["name"]: one for one in document["resources"]}
    assert list(by_name) == sorted(by_name)
    assert by_name["pods"] == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": ["po"],
        "categories": ["all"],
    }
    assert by_name["pods/eviction"] == {
        "name": "pods/eviction",
        "singularName": "",
        "namespaced": True,
        "group": "policy",
        "version": "v1",
        "kind": "Eviction",
        "verbs": ["create"],
    }
    assert by_name["services/proxy"]["kind"] == "ServiceProxyOptions"


def test_legacy_discovery_of_groups() -> None:
    names = [one["name"] for one in discovery.group_list(BUILTIN)["groups"]]
    assert "" not in names
    assert len(names) == len(set(names))
    autoscaling = discovery.group(BUILTIN, "autoscaling")
    assert autoscaling["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}
    assert [one["version"] for one in autoscaling["versions"]] == ["v2", "v1"]
    with pytest.raises(LookupError):
        discovery.group(BUILTIN, "nope")
    with pytest.raises(LookupError):
        discovery.resource_list(BUILTIN, "apps", "v2")


def test_aggregated_discovery_holds_the_same() -> None:
    core = discovery.aggregated(BUILTIN, core=True)
    assert len(core["items"]) == 1
    pods = next(one for one in core["items"][0]["versions"][0]["resources"] if one["resource"] == "pods")
    assert pods["responseKind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert pods["scope"] == "Namespaced"
    scale = {
        "subresource": "eviction",
        "responseKind": {"group": "policy", "version": "v1", "kind": "Eviction"},
        "verbs": ["create"],
    }
    assert scale in pods["subresources"]
    others = discovery.aggregated(BUILTIN, core=False, version="v2beta1")
    assert others["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    served = {
        (item["metadata"].get("name", ""), version["version"], one["resource"])
        for document in (core, others)
        for item in document["items"]
        for version in item["versions"]
        for one in version["resources"]
    }
    assert served == {(row.group, row.version, row.plural) for row in BUILTIN}
