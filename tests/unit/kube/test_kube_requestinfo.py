"""What a path asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.requestinfo import parse_path, request_info


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/api/v1/pods", ("", "v1", "", "pods", "", "", "")),
        ("/api/v1/namespaces/a/pods/b", ("", "v1", "a", "pods", "b", "", "")),
        ("/api/v1/namespaces/a/pods/b/log", ("", "v1", "a", "pods", "b", "log", "")),
        ("/api/v1/namespaces/a", ("", "v1", "a", "namespaces", "a", "", "")),
        ("/api/v1/namespaces/a/finalize", ("", "v1", "a", "namespaces", "a", "finalize", "")),
        ("/api/v1/namespaces/a/status", ("", "v1", "a", "namespaces", "a", "status", "")),
        ("/apis/apps/v1/namespaces/a/deployments", ("apps", "v1", "a", "deployments", "", "", "")),
        ("/api/v1/nodes/n/proxy/a/b", ("", "v1", "", "nodes", "n", "proxy", "a/b")),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Ax", ("rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:x", "", "")),
        ("/api/v1/watch/namespaces/a/pods/b", ("", "v1", "a", "pods", "b", "", "")),
    ],
)  # fmt: skip
def test_resource_paths(path: str, parts: tuple[str, ...]) -> None:
    route = parse_path(path)
    assert (
        route.group,
        route.version,
        route.namespace,
        route.resource,
        route.name,
        route.subresource,
        route.rest,
    ) == parts
    assert route.watch == ("/watch/" in path)


@pytest.mark.parametrize("path", ["/", "", "/api", "/api/v1", "/apis", "/apis/apps/v1", "/healthz", "/api/v1/watch"])
def test_other_paths_are_no_resources(path: str) -> None:
    assert not parse_path(path).resource


@pytest.mark.parametrize(
    ("method", "path", "watch", "verb"),
    [
        ("GET", "/api/v1/pods", False, "list"),
        ("GET", "/api/v1/pods", True, "watch"),
        ("GET", "/api/v1/namespaces/a/pods/b", True, "get"),
        ("HEAD", "/api/v1/namespaces/a/pods/b", False, "get"),
        ("GET", "/api/v1/watch/namespaces/a/pods/b", True, "watch"),
        ("POST", "/api/v1/namespaces/a/pods", False, "create"),
        ("PUT", "/api/v1/namespaces/a/pods/b", False, "update"),
        ("PATCH", "/api/v1/namespaces/a/pods/b", False, "patch"),
        ("DELETE", "/api/v1/namespaces/a/pods/b", False, "delete"),
        ("DELETE", "/api/v1/namespaces/a/pods", False, "deletecollection"),
        ("GET", "/version", False, "get"),
    ],
)
def test_verbs(method: str, path: str, watch: bool, verb: str) -> None:
    assert request_info(method, parse_path(path), watch=watch).verb == verb


@given(st.text())
def test_any_path_parses(text: str) -> None:
    parse_path("/" + text)
