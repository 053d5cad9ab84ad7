"""Webhooks for a cluster's API server: installed, asked over TLS, and what they do with nonsense."""

from __future__ import annotations

import base64
import copy
import json
import logging
import socket
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from link_site import SiteMaker, free_ports

from edgesite.client import Client
from edgesite.cloud.admission.module import Admission
from edgesite.cloud.admission.place import SECRET, Place, place_of
from edgesite.cloud.admission.webhooks import ADMISSION_BYTES, Webhooks
from edgesite.cloud.install import Installer
from edgesite.kube.devices import V1ALPHA2, V1BETA1
from edgesite.kube.devices.crds import definitions
from edgesite.kube.errors import ApiError, unavailable
from edgesite.kube.resources import BUILTIN, CUSTOM_RESOURCE_DEFINITIONS, DEVICE_MODELS, SECRETS
from edgesite.net.client import HttpClient
from edgesite.net.headers import Headers
from edgesite.net.http import Request, Response
from edgesite.net.http_messages import PeerInfo
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealNet
from edgesite.net.tls import client_context
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio
Object = dict[str, Any]
WEBHOOKS = next(one for one in BUILTIN if one.plural == "validatingwebhookconfigurations")
DEVICES_CRD, MODELS_CRD = "devices.devices.kubeedge.io", "devicemodels.devices.kubeedge.io"
JSON = {"content-type": "application/json"}


async def install(client: Client, place: Place | None = None, **more: Any) -> list[str]:
    """Run the installer; returns its lines."""
    lines: list[str] = []
    clock = RealClock()
    with anyio.fail_after(DEADLINE_S):
        await Installer(client, RealPki(clock), clock, lines.append).run(place, "Ignore", **more)
    return lines


async def conversion(client: Client) -> Object:
    found = await client.get(CUSTOM_RESOURCE_DEFINITIONS, DEVICES_CRD)
    made: Object = found["spec"].get("conversion") or {}
    return (made.get("webhook") or {}).get("clientConfig") or {}


def changes(lines: list[str]) -> list[str]:
    return [one for one in lines if one.startswith(("created", "updated", "made"))]


async def test_it_is_installed_once_kept_and_moved(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        first = await install(client, Place(url="https://192.0.2.1:10443"))
        assert f"created {DEVICES_CRD}" in first
        assert changes(await install(client, Place(url="https://192.0.2.1:10443"))) == []
        assert changes(await install(client)) == [], "the place of before is kept"
        theirs = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        await client.create(WEBHOOKS, {**theirs, "metadata": {"name": "validate-devicemodel"}})
        lines = await install(client)
        assert [one for one in lines if "validate-devicemodel" in one and "KubeEdge's admission" in one]
        assert changes(lines) == []
        assert changes(await install(client, default=Place(namespace="a", service="b"))) == []
        config = await conversion(client)
        assert config["url"] == "https://192.0.2.1:10443/convert"
        webhooks = (await client.get(WEBHOOKS, "edgesite-devices"))["webhooks"]
        assert {one["clientConfig"]["caBundle"] for one in webhooks} == {config["caBundle"]}
        moved = await install(client, Place(namespace="kubeedge", service="hooks", port=8443))
        assert any("made a certificate for hooks.kubeedge.svc" in one for one in moved)
        service = {"namespace": "kubeedge", "name": "hooks", "path": "/convert", "port": 8443}
        config = await conversion(client)
        assert (config["service"], "url" in config) == (service, False)
        assert base64.b64decode(config["caBundle"]).count(b"BEGIN CERTIFICATE") == 2, (
            "instances show the former one yet"
        )


async def test_definitions_of_kubeedge_are_upgraded_only_where_something_converts(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        for one in definitions():
            one["spec"]["versions"] = [
                {**version, "storage": True} for version in one["spec"]["versions"] if version["name"] == "v1alpha2"
            ]
            one["metadata"]["labels"] = {"theirs": "stays"}
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, one)
        lines = await install(client)
        assert f"kept {DEVICES_CRD}, which was there" in lines, "its objects would be cut"
        assert any("not checked against their models" in one for one in lines)
        assert await client.list(WEBHOOKS)
        lines = await install(client, Place(url="https://192.0.2.1:10443"))
        assert {f"updated {DEVICES_CRD}", f"updated {MODELS_CRD}"} <= set(lines)
        found = await client.get(CUSTOM_RESOURCE_DEFINITIONS, DEVICES_CRD)
        assert found["metadata"]["labels"] == {"theirs": "stays"}
        assert {one["name"]: one["served"] for one in found["spec"]["versions"]} == {"v1beta1": True, "v1alpha2": True}


async def test_a_definition_with_objects_of_an_unknown_version_is_left_alone(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        await install(client)
        stored = {"status": {"storedVersions": ["v1alpha1"]}}
        await client.patch(CUSTOM_RESOURCE_DEFINITIONS, MODELS_CRD, stored, subresource="status")
        lines = await install(client, Place(url="https://192.0.2.1:10443"))
        assert any(one.startswith(f"kept {MODELS_CRD}: it has objects of v1alpha1") for one in lines)


async def test_a_certificate_of_the_administrator_is_used_as_it_is(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        await install(client, Place(url="https://192.0.2.1:1"))
        secret = await client.get(SECRETS, SECRET, "kubeedge")
        del secret["metadata"]["annotations"]
        await client.update(SECRETS, secret)
        lines = await install(client, Place(url="https://192.0.2.9:1"))
        assert not any("certificate" in one for one in lines)
        assert (await conversion(client))["caBundle"] == secret["data"]["ca.crt"]


def review(obj: Object, plural: str = "devices") -> Object:
    resource = {"group": "devices.kubeedge.io", "version": "v1beta1", "resource": plural}
    request = {"uid": "1", "resource": resource, "operation": "CREATE", "namespace": "default", "object": obj}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def device(value: str = "20", model: str = "room") -> Object:
    spec = {"deviceModelRef": {"name": model}, "properties": [{"name": "target", "desired": {"value": value}}]}
    return {"apiVersion": V1BETA1, "kind": "Device", "metadata": {"name": "hall"}, "spec": spec}


def model(maximum: str = "30") -> Object:
    properties = [{"name": "target", "type": "FLOAT", "accessMode": "ReadWrite", "maximum": maximum}]
    metadata = {"name": "room", "namespace": "default"}
    return {"apiVersion": V1BETA1, "kind": "DeviceModel", "metadata": metadata, "spec": {"properties": properties}}


async def test_an_api_server_asks_over_tls(make_site: SiteMaker) -> None:
    """It listens once the Secret is there, and shows another certificate as soon as that changes."""
    (port,) = free_ports(1)
    settings = {"admission": {"address": "127.0.0.1", "port": port}}

    async def ask(path: str, body: Object, name: str, bundle: str) -> Object:
        tls = client_context(ca=base64.b64decode(bundle))
        http = HttpClient(RealNet(), f"127.0.0.1:{port}", tls=tls, server_hostname=name, headers=JSON)
        try:
            reply = await http.request("POST", path, {}, json.dumps(body).encode())
        finally:
            await http.close()
        assert reply.status == 200, reply.body
        found: Object = json.loads(reply.body)["response"]
        return found

    async with (
        make_site(single_process=False) as site,
        site.cluster() as client,
        site.instance("one", Admission, settings=settings),
    ):
        await client.create(DEVICE_MODELS, model())
        await install(client, Place(url=f"https://localhost:{port}"))
        bundle = (await conversion(client))["caBundle"]

        async def answers(name: str, bundle: str) -> Object:
            with anyio.fail_after(DEADLINE_S):
                while True:
                    try:
                        return await ask("/devices", review(device("31")), name, bundle)
                    except OSError:  # not yet
                        await anyio.sleep(0.02)

        denied = await answers("localhost", bundle)
        assert denied["status"]["details"]["causes"][0]["field"] == "spec.properties[0].desired.value"
        assert (await ask("/devices", review(device("21")), "localhost", bundle))["allowed"]
        request = {"uid": "2", "desiredAPIVersion": V1ALPHA2, "objects": [device()] * 120}
        whole = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
        made = await ask("/convert", whole, "localhost", bundle)
        assert [one["apiVersion"] for one in made["convertedObjects"]] == [V1ALPHA2] * 120
        await install(client, Place(namespace="kubeedge", service="hooks"))
        bundle = (await conversion(client))["caBundle"]
        assert not (await answers("hooks.kubeedge.svc", bundle))["allowed"]


async def test_a_taken_port_and_a_certificate_that_is_none_are_said_and_tried_again(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def said(words: str) -> list[str]:
        return [one for one in caplog.messages if words in one]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"admission": {"address": "127.0.0.1", "port": port}}
        async with make_site(single_process=False) as site, site.cluster() as client:
            await install(client, Place(url=f"https://localhost:{port}"))
            good = await client.get(SECRETS, SECRET, "kubeedge")
            await client.patch(SECRETS, SECRET, {"data": {"tls.key": base64.b64encode(b"none").decode()}}, "kubeedge")
            async with site.instance("one", Admission, settings=settings):
                await until(lambda: said("webhooks for the cluster's API server"))
                await client.patch(SECRETS, SECRET, {"data": {"tls.key": good["data"]["tls.key"]}}, "kubeedge")
                await until(lambda: said("in use"))
                taken.close()
                await until(lambda: said(f"webhooks for the cluster's API server: 127.0.0.1:{port}"))
    assert len(said("in use")) == 1
    assert good["data"]["tls.key"] not in caplog.text


class Asked:
    """Webhooks over models in memory; ``live`` counts questions to the API."""

    def __init__(self, cached: Object | None = None, live: Object | ApiError | None = None) -> None:
        self.live = 0
        self.counted: list[tuple[str, str]] = []

        async def ask(namespace: str, name: str) -> Object | None:
            self.live += 1
            if isinstance(live, ApiError):
                raise live
            return live

        log = logging.getLogger("test")
        self._webhooks = Webhooks(
            lambda namespace, name: cached, ask, lambda what, end: self.counted.append((what, end)), log
        )

    async def __call__(
        self, body: Any, path: str = "/devices", method: str = "POST", content_type: str = "application/json"
    ) -> Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = Headers([(b"content-type", content_type.encode())])
        return await self._webhooks(Request(None, method, path, headers, raw, _peer()))

    async def verdict(self, obj: Object) -> bool:
        return bool(json.loads((await self(review(obj))).body)["response"]["allowed"])


def _peer() -> PeerInfo:
    class Transport:
        def get_extra_info(self, name: str) -> None:
            return None

    return PeerInfo(Transport())  # type: ignore[arg-type]


async def test_a_model_that_was_applied_a_moment_ago_counts() -> None:
    asked = Asked(cached=None, live=model())
    assert await asked.verdict(device())
    asked = Asked(cached=model("10"), live=model("30"))
    assert await asked.verdict(device("20")), "nothing is refused by the cache alone"
    assert asked.live == 1
    asked = Asked(cached=model(), live=None)
    assert await asked.verdict(device())
    assert asked.live == 0, "what is good needs no question"
    assert not await Asked(cached=None, live=None).verdict(device())


async def test_what_cannot_be_decided_is_left_to_the_failure_policy() -> None:
    reply = await Asked(live=unavailable("no answer"))(review(device()))
    assert reply.status == 500


@pytest.mark.parametrize(
    ("body", "more", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"{}", {"path": "/convert"}, 400),
        (b"[" * 100_000, {"path": "/convert"}, 400),
        (review({"metadata": 1}), {}, 400),
        (review(device(), plural="pods"), {}, 400),
        (review({"metadata": {}, "kind": {}, "apiVersion": []}), {"path": "/convert"}, 400),
        (b" " * (ADMISSION_BYTES + 1), {}, 413),
        (review(device()), {"path": "/pods"}, 404),
        (review(device()), {"method": "GET"}, 405),
        (review(device()), {"content_type": "text/plain"}, 415),
    ],
)
async def test_nonsense_is_answered_and_counted(body: Any, more: dict[str, str], status: int) -> None:
    asked = Asked(cached=model())
    assert (await asked(body, **more)).status == status
    assert len(asked.counted) == 1
    assert asked.counted[0][1] in ("malformed", "failed")


async def test_a_flood_of_reviews_is_logged_once_and_asks_the_api_little_at_a_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_once = most = 0

    async def ask(namespace: str, name: str) -> Object | None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await anyio.lowlevel.checkpoint()
            raise unavailable("no answer")
        finally:
            at_once -= 1

    webhooks = Webhooks(lambda namespace, name: None, ask, lambda what, end: None, logging.getLogger("test"))
    headers = Headers([(b"content-type", b"application/json")])
    asked = Request(None, "POST", "/devices", headers, json.dumps(review(device())), _peer())
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(webhooks, asked)
    assert most <= 4
    assert caplog.text.count("could not be checked") == 1


async def test_no_secret_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = device()
    secret["spec"]["protocol"] = {"protocolName": "opcua", "configData": {"password": "s3cret"}}
    broken = copy.deepcopy(secret)
    broken["spec"]["methods"] = [{"name": "a", "propertyNames": 3}]
    for live in (model(), None, unavailable("no answer")):
        asked = Asked(live=live)
        for obj in (secret, broken):
            await asked(review(obj))
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("url", ["http://a", "https://", "https://a?b=c", "https://user@a"])
def test_places_that_api_servers_refuse(url: str) -> None:
    with pytest.raises(ValueError, match="is no place"):
        place_of({"url": url})


def test_places_are_read_from_settings_and_from_what_is_installed() -> None:
    assert place_of({"url": "", "service": {"name": ""}}) is None
    for place in (Place(url="https://[2001:db8::1]:10443"), Place(namespace="a", service="b", port=8443)):
        assert place_of(place.client_config("/convert", b"ca")) == place
    assert Place(url="https://[2001:db8::1]:10443").names() == ["2001:db8::1"]
