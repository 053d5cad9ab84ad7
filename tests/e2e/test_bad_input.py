"""Whatever arrives at the API's port is answered as Kubernetes answers it, or dropped, and the server goes on."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_api import Answer, Api
from e2e_site import Site, eventually, free_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NS = "/api/v1/namespaces/default"
MAPS = f"{NS}/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json")


@pytest.fixture(scope="module")
def api(shared_site: Site) -> Iterator[Api]:
    made = Api(shared_site.kubeconfig)
    made.call("POST", MAPS, {"metadata": {"name": "bad-input"}, "data": {"a": "b"}})
    yield made
    assert made.get(f"{MAPS}/bad-input").obj["data"] == {"a": "b"}  # nothing of all this changed it
    made.call("DELETE", f"{MAPS}/bad-input")
    assert "Traceback" not in shared_site.log()


def refused(answer: Answer, code: int, reason: str) -> str:
    """Check a Status and return its message."""
    assert answer.status == code, answer.body
    assert "Traceback" not in answer.body.decode(errors="replace")
    status = answer.obj
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert (status["code"], status["reason"]) == (code, reason)
    return str(status["message"])


def config_map(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "never"}, **more}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"metadata":{"name":"x"}', b"{}{}", b"\x00" * 50]
)
def test_bodies_that_are_no_object(api: Api, body: bytes) -> None:
    refused(api.call("POST", MAPS, body), 400, "BadRequest")


@pytest.mark.parametrize(
    "body", [b"a: [", b"\t- x", b"a: &x [*x]", b"- a\n- b", b"!!python/object:os.system {}", b"a: b: c"]
)
def test_yaml_that_is_none(api: Api, body: bytes) -> None:
    refused(api.call("POST", MAPS, body, content_type="application/yaml"), 400, "BadRequest")


def test_wrong_kinds_and_types(api: Api) -> None:
    refused(api.call("POST", MAPS, config_map(kind="Secret")), 400, "BadRequest")
    refused(api.call("POST", MAPS, config_map(apiVersion="v2")), 400, "BadRequest")
    message = refused(api.call("POST", MAPS, config_map(data={"a": 5})), 400, "BadRequest")
    assert "cannot unmarshal number" in message
    assert "data" in message
    assert "name" in refused(api.call("POST", MAPS, config_map(metadata={})), 422, "Invalid")
    refused(api.call("POST", MAPS, config_map(metadata={"name": "UPPER"})), 422, "Invalid")
    refused(api.call("POST", MAPS, config_map(metadata={"name": "x", "namespace": "other"})), 400, "BadRequest")
    answer = api.call("POST", f"{MAPS}?fieldValidation=Strict", config_map(dta={}))
    assert 'unknown field "dta"' in refused(answer, 400, "BadRequest")
    refused(api.call("POST", f"{MAPS}?fieldValidation=Lax", config_map()), 422, "Invalid")
    causes = api.call("POST", DEPLOYMENTS, {"metadata": {"name": "x"}, "spec": {"replicas": -1}}).obj["details"][
        "causes"
    ]
    assert {"spec.selector", "spec.replicas"} <= {one["field"] for one in causes}


def test_what_is_not_there(api: Api) -> None:
    assert "the server could not find the requested resource" in refused(
        api.get("/apis/none.example/v1/things"), 404, "NotFound"
    )
    refused(api.get(f"{NS}/nonsense"), 404, "NotFound")
    refused(api.get(f"{MAPS}/nobody"), 404, "NotFound")
    refused(api.call("POST", "/api/v1/namespaces/nowhere/configmaps", config_map()), 404, "NotFound")
    refused(api.call("POST", f"{MAPS}/bad-input", config_map()), 405, "MethodNotAllowed")
    refused(api.call("PUT", MAPS, config_map()), 405, "MethodNotAllowed")
    refused(api.call("POST", MAPS, b"x", content_type="text/plain"), 415, "UnsupportedMediaType")
    refused(api.call("PATCH", f"{MAPS}/bad-input", {}, content_type="application/json"), 415, "UnsupportedMediaType")
    refused(api.get(f"{MAPS}/bad-input", Accept="image/png"), 406, "NotAcceptable")


def test_conflicts(api: Api) -> None:
    refused(api.call("POST", MAPS, config_map(metadata={"name": "bad-input"})), 409, "AlreadyExists")
    stale = config_map(metadata={"name": "bad-input", "resourceVersion": "1"})
    refused(api.call("PUT", f"{MAPS}/bad-input", stale), 409, "Conflict")
    other = config_map(metadata={"name": "bad-input", "uid": "00000000-0000-0000-0000-000000000000"})
    refused(api.call("PUT", f"{MAPS}/bad-input", other), 409, "Conflict")
    for odd in ("x", "-1", "1.5"):
        named = config_map(metadata={"name": "bad-input", "resourceVersion": odd})
        refused(api.call("PUT", f"{MAPS}/bad-input", named), 409, "Conflict")
    refused(api.call("PUT", f"{MAPS}/bad-input", config_map()), 400, "BadRequest")
    wrong = {"preconditions": {"resourceVersion": "1"}}
    refused(api.call("DELETE", f"{MAPS}/bad-input", wrong), 409, "Conflict")


def test_bodies_beyond_the_limit(api: Api) -> None:
    big = config_map(data={"a": "x" * (3 * 1024 * 1024)})
    assert "limit is 3145728" in refused(api.call("POST", MAPS, big), 413, "RequestEntityTooLarge")
    below = config_map(data={"a": "x" * (2 * 1024 * 1024)})
    refused(api.call("POST", MAPS, below), 422, "Invalid")  # a ConfigMap's own limit is 1 MiB
    deep = b'{"metadata":{"name":"deep"},"data":' + b'{"a":' * 20000 + b"1" + b"}" * 20001
    assert api.call("POST", MAPS, deep).status == 400
    many = [{"op": "add", "path": "/data/a", "value": "b"}] * 20_000
    assert api.call("PATCH", f"{MAPS}/bad-input", many, content_type=PATCHES[0]).status in (413, 422)


@pytest.mark.parametrize("kind", PATCHES)
@pytest.mark.parametrize("body", [b"", b"{", b"5", b'"x"', b"\xff"])
def test_patches_that_are_none(api: Api, kind: str, body: bytes) -> None:
    refused(api.call("PATCH", f"{MAPS}/bad-input", body, content_type=kind), 400, "BadRequest")


def test_patches_that_do_not_fit(api: Api) -> None:
    def patch(body: Any, kind: str, query: str = "") -> Answer:
        return api.call("PATCH", f"{MAPS}/bad-input{query}", body, content_type=kind)

    for operation in (
        {"op": "remove", "path": "/data/none"},
        {"op": "test", "path": "/data/a", "value": "c"},
        {"op": "replace", "path": "/data/x/y", "value": 1},
        {"op": "move", "from": "/data", "path": "/data/a"},
    ):
        refused(patch([operation], PATCHES[0]), 422, "Invalid")
    for operation in ({"op": "fly", "path": "/x"}, {"path": "/x"}, 5):
        assert patch([operation], PATCHES[0]).status in (400, 422)
    refused(patch({"metadata": {"name": "other"}}, PATCHES[1]), 400, "BadRequest")
    refused(patch({"data": {"a": [1]}}, PATCHES[1]), 400, "BadRequest")
    refused(patch({"metadata": {"resourceVersion": "1"}}, PATCHES[2]), 409, "Conflict")
    apply = "application/apply-patch+yaml"
    mine = config_map(metadata={"name": "bad-input"})
    assert "fieldManager" in refused(patch(mine, apply), 422, "Invalid")
    assert patch(b"a: [", apply, "?fieldManager=x").status == 400
    refused(patch({**mine, "kind": "Secret"}, apply, "?fieldManager=x"), 400, "BadRequest")
    managed = {**mine, "metadata": {"name": "bad-input", "managedFields": [{"manager": "x"}]}}
    refused(patch(managed, apply, "?fieldManager=x"), 400, "BadRequest")
    refused(patch({"data": {}}, PATCHES[1], "?fieldManager=" + "x" * 200), 422, "Invalid")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=x", 400),
        ("limit=99999999999999999999999", 400),
        ("continue=nonsense", 400),
        ("labelSelector=a%20in%20(", 400),
        ("labelSelector=" + "a" * 300, 400),
        ("fieldSelector=spec.none%3D1", 400),
        ("resourceVersion=-1", 422),
        ("resourceVersion=x&resourceVersionMatch=Exact", 422),
        ("watch=true&timeoutSeconds=x", 400),
        ("watch=true&resourceVersion=zzz", 422),
        ("resourceVersionMatch=Sometimes&resourceVersion=1", 422),
        ("sendInitialEvents=true", 422),
        ("%00=%ff", 200),
        ("a=b&" * 2000, 200),
    ],
)
def test_absurd_queries(api: Api, query: str, code: int) -> None:
    answer = api.get(f"{MAPS}?{query}")
    assert answer.status == code, answer.body
    if code >= 400:
        assert answer.obj["kind"] == "Status"


def test_who_is_not_let_in(shared_site: Site, api: Api, tmp_path: Path) -> None:
    nobody = Api(shared_site.kubeconfig, anonymous=True)
    assert 'User "system:anonymous" cannot list' in refused(nobody.get(MAPS), 403, "Forbidden")
    for header in ("Bearer nonsense", "Bearer a.b.c", "Bearer " + "x" * 5000):
        refused(nobody.get(MAPS, Authorization=header), 401, "Unauthorized")
    refused(nobody.get(MAPS, Authorization="Basic YTpi"), 403, "Forbidden")
    refused(api.get(MAPS, **{"Impersonate-Group": "system:masters"}), 400, "BadRequest")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    subject = ["-subj", "/O=system:masters/CN=admin", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    nobody.tls.load_cert_chain(certificate, key)
    with pytest.raises(
        OSError, match=r"closed connection|unknown ca|reset"
    ):  # nobody signs administrators but the site itself
        nobody.get(MAPS)


def said(api: Api, sent: bytes, *, tls: bool = True) -> bytes:
    """Send bytes, end the sending side where that is possible, and return what comes until the end."""
    plain = socket.create_connection((api.host, api.port), 10)
    connection: socket.socket = api.tls.wrap_socket(plain, server_hostname=api.host) if tls else plain
    got = b""
    with connection:
        try:
            connection.sendall(sent)
            if not tls:
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(3)
            while chunk := connection.recv(65536):
                got += chunk
        except (OSError, ssl.SSLError):
            pass  # cut off is an answer, too
    return got


def test_bytes_that_are_no_http(api: Api) -> None:
    for garbage in (
        b"\x00" * 1000,
        b"\x16\x03\x01garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        assert said(api, garbage).split(b"\r\n")[0] in (
            b"",
            b"HTTP/1.1 400 Bad Request",
            b"HTTP/1.1 505 HTTP Version Not Supported",
        )
        assert said(api, garbage, tls=False).startswith((b"", b"\x15", b"HTTP/1."))
    large = b"GET /version HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * 2_000_000 + b"\r\n\r\n"
    assert said(api, large).startswith((b"HTTP/1.1 431", b""))
    lying = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef" % MAPS.encode()
    assert said(api, lying).startswith(b"HTTP/1.1 400")
    smuggled = (
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        % MAPS.encode()
    )
    assert said(api, smuggled).startswith(b"HTTP/1.1 400")
    announced = (
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4000000000\r\n\r\n"
        % MAPS.encode()
    )
    assert said(api, announced).startswith(b"HTTP/1.1 413")
    assert api.get("/readyz").body == b"ok"


def test_requests_that_are_never_finished(api: Api) -> None:
    half = [api.raw() for _ in range(50)]
    for number, connection in enumerate(half):
        connection.sendall(
            [b"GET /ap", b"GET /api HTTP/1.1\r\nHo", b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"][
                number % 3
            ]
        )
    assert api.get("/readyz").body == b"ok"
    for connection in half:
        connection.close()
    assert api.get("/readyz").body == b"ok"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "data", "a", "", "spec", "metadata"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SEGMENT = st.sampled_from(
    [
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "default",
        "pods",
        "configmaps",
        "bad-input",
        "log",
        "status",
        "scale",
        "..",
        "%2e%2e",
        "%00",
        "é",
        "",
        "x" * 300,
    ]
)
QUERY = st.sampled_from(
    [
        "",
        "watch=1&timeoutSeconds=1",
        "limit=-5",
        "dryRun=All",
        "dryRun=x",
        "pretty=1",
        "continue=",
        "fieldManager=%01",
        "force=maybe",
        "gracePeriodSeconds=-9",
        "fieldValidation=Strict",
    ]
)
MEDIA = st.sampled_from(
    [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "",
        "x/y",
        *PATCHES,
        "application/apply-patch+yaml",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "PATCH", "HEAD", "OPTIONS", "BREW", "get"]),
    path=st.lists(SEGMENT, max_size=7).map("/".join) | st.just(MAPS[1:]) | st.just(f"{MAPS}/bad-input"[1:]),
    query=QUERY,
    body=st.none() | st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
    media=MEDIA,
)
def test_any_request_has_an_answer(
    api: Api, method: str, path: str, query: str, body: bytes | None, media: str
) -> None:
    target = "/" + path.encode("ascii", "replace").decode() + (f"?{query}&" if query else "?") + "dryRun=All"
    answer = api.call(method, target, body, content_type=media)
    assert answer.status < 500, (method, target, body, answer.body)
    assert b"Traceback" not in answer.body
    if answer.status >= 400 and method != "HEAD" and answer.body.startswith(b"{"):
        assert answer.obj["code"] == answer.status


def test_the_log_holds_no_traceback_and_the_site_is_well(shared_site: Site, api: Api) -> None:
    assert api.get("/readyz").body == b"ok"
    kubectl = shared_site.kubectl()
    eventually(lambda: "Ready" in kubectl("get", "nodes"), "a Ready node")
    assert "Traceback" not in shared_site.log()


def test_other_hosts_listeners_take_garbage_too(new_site: Callable[..., Site]) -> None:
    hub, bootstrap, tunnel = free_port(), free_port(), free_port()
    site = new_site("--hub-port", str(hub), "--bootstrap-port", str(bootstrap), "--tunnel-port", str(tunnel))
    site.start()
    for port in (hub, bootstrap, tunnel):
        eventually(lambda p=port: _connects(p), f"a listener on {port}")  # type: ignore[misc]
        for garbage in (b"", b"\x00" * 5000, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000):
            with socket.create_connection(("127.0.0.1", port), 5) as plain:
                plain.sendall(garbage)
    kubectl = site.kubectl()
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert "Traceback" not in site.log()


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
