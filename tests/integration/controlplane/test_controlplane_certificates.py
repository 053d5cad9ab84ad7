"""Signing requests of nodes on the real API server: approved when they are the node's own, signed, and nothing beyond that."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from controlplane_site import Site
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN, NODES
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock

pytestmark = pytest.mark.anyio

REQUESTS = next(one for one in BUILTIN if one.plural == "certificatesigningrequests")
SERVING, CLIENT = "kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"
USERS = "kubernetes.io/kube-apiserver-client"
USAGE = {SERVING: "server auth", CLIENT: "client auth", USERS: "client auth"}


def pkcs10(name: str, *sans: str, organizations: tuple[str, ...] = ("system:nodes",)) -> bytes:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName([san(one) for one in sans]), critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def san(text: str) -> x509.GeneralName:
    if "@" in text:
        return x509.RFC822Name(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def request(name: str, signer: str, asked: bytes, who: str = "system:node:n1", **spec: Any) -> dict[str, Any]:
    given = {
        "request": base64.b64encode(asked).decode(),
        "signerName": signer,
        "usages": ["digital signature", USAGE[signer]],
    }
    asker = {"username": who, "groups": ["system:nodes", "system:authenticated"]}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {**given, **asker, **spec},
    }


@pytest.fixture
async def signing(site: Site, tmp_path: Path) -> Site:
    ca = await RealPki(RealClock()).make_ca("edgesite-ca")
    (tmp_path / "pki/ca.crt").write_bytes(ca.certificate)
    (tmp_path / "pki/ca.key").write_bytes(ca.key)
    await site.node("n1")
    addresses = [{"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": "n1"}]
    await site.client.patch(NODES, "n1", {"status": {"addresses": addresses}}, subresource="status")
    return site


def having(name: str, check: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    return lambda cache: (one := cache.get(name)) is not None and check(one.get("status") or {}) and one


def types(status: dict[str, Any]) -> list[str]:
    return [one["type"] for one in status.get("conditions") or ()]


async def test_a_node_gets_its_own(signing: Site) -> None:
    asked = pkcs10("system:node:n1", "n1", "192.0.2.7", "127.0.0.1", "169.254.30.10")
    await signing.client.create(REQUESTS, request("serving", SERVING, asked))
    await signing.client.create(REQUESTS, request("client", CLIENT, pkcs10("system:node:n1"), expirationSeconds=86400))
    for name, usage in (("serving", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        found = await signing.until(REQUESTS, having(name, lambda status: status.get("certificate")))
        made = x509.load_pem_x509_certificate(base64.b64decode(found["status"]["certificate"]))
        assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        assert made.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
        assert types(found["status"]) == ["Approved"]
        if name == "serving":
            names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert [str(one.value) for one in names] == ["n1", "192.0.2.7", "127.0.0.1", "169.254.30.10"]
        else:
            assert (made.not_valid_after_utc - made.not_valid_before_utc).days <= 8, "a day, and what is backdated"


async def test_what_is_not_its_own_waits_for_an_administrator(signing: Site) -> None:
    await signing.client.create(REQUESTS, request("other", SERVING, pkcs10("system:node:n1", "n1"), "system:node:n2"))
    await signing.client.create(REQUESTS, request("user", CLIENT, pkcs10("system:node:n1"), "jane"))
    await signing.client.create(REQUESTS, request("nobody", CLIENT, pkcs10("system:node:n9"), "system:node:n9"))
    masters = pkcs10("system:node:n1", organizations=("system:nodes", "system:masters"))
    await signing.client.create(REQUESTS, request("masters", CLIENT, masters))
    await signing.client.create(REQUESTS, request("last", CLIENT, pkcs10("system:node:n1")))
    await signing.until(REQUESTS, having("last", lambda status: status.get("certificate")))
    for name in ("other", "user", "nobody", "masters"):
        assert types((await signing.client.get(REQUESTS, name)).get("status") or {}) == []
    approved = await signing.client.get(REQUESTS, "other")
    approved["status"] = {
        "conditions": [{"type": "Approved", "status": "True", "reason": "KubectlApprove"}],
        "certificate": "Zm9yZ2Vk",
    }
    approved["spec"]["username"] = "somebody"
    made = await signing.client.update(REQUESTS, approved, subresource="approval")
    assert (made["spec"]["username"], made["status"].get("certificate")) == ("system:node:n2", None)
    await signing.until(REQUESTS, having("other", lambda status: status.get("certificate")))
    approved = await signing.client.get(REQUESTS, "masters")
    approved["status"] = {"conditions": [{"type": "Approved", "status": "True"}]}
    await signing.client.update(REQUESTS, approved, subresource="approval")
    failed = await signing.until(REQUESTS, having("masters", lambda status: "Failed" in types(status)))
    assert "subject must be" in failed["status"]["conditions"][-1]["message"]


@pytest.mark.parametrize("strange", ["cloud.example.com", "192.0.2.99", "root@example.com"])
async def test_no_names_of_others_are_certified(signing: Site, strange: str) -> None:
    await signing.client.create(REQUESTS, request("r", SERVING, pkcs10("system:node:n1", "n1", strange)))
    failed = await signing.until(REQUESTS, having("r", lambda status: "Failed" in types(status)))
    assert "certificate" not in failed["status"]


async def test_a_user_gets_a_certificate_once_somebody_has_approved(signing: Site) -> None:
    jane = pkcs10("jane", organizations=("dev",))
    made = await signing.client.create(REQUESTS, request("jane", USERS, jane, "jane"))
    await signing.client.create(REQUESTS, request("last", CLIENT, pkcs10("system:node:n1")))
    await signing.until(REQUESTS, having("last", lambda status: status.get("certificate")))
    assert types((await signing.client.get(REQUESTS, "jane")).get("status") or {}) == []
    approved = {"type": "Approved", "status": "True", "reason": "Known", "message": "hello"}
    await signing.client.update(REQUESTS, {**made, "status": {"conditions": [approved]}}, subresource="approval")
    found = await signing.until(REQUESTS, having("jane", lambda status: status.get("certificate")))
    certificate = x509.load_pem_x509_certificate(base64.b64decode(found["status"]["certificate"]))
    assert certificate.subject.rfc4514_string() == "CN=jane,O=dev"


async def test_a_denial_stands_and_a_status_gives_no_approval(signing: Site) -> None:
    made = await signing.client.create(REQUESTS, request("r", SERVING, pkcs10("system:node:n1", "n1"), "jane"))
    forged = {**made, "status": {"conditions": [{"type": "Approved", "status": "True"}]}}
    assert types((await signing.client.update_status(REQUESTS, forged)).get("status") or {}) == []
    denied = {"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "No"}]}}
    await signing.client.patch(REQUESTS, "r", denied, subresource="approval")
    both = {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}
    await signing.client.patch(REQUESTS, "r", both, subresource="approval")
    assert "certificate" not in (await signing.client.get(REQUESTS, "r"))["status"]
    with pytest.raises(ApiError):
        await signing.client.create(REQUESTS, request("short", SERVING, pkcs10("system:node:n1"), expirationSeconds=60))
