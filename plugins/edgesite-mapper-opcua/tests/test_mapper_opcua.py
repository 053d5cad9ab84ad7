"""The OPC UA driver against asyncua's server: types, users, security policies, certificates, loss of the server."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from edgesite_mapper_opcua.driver import OpcUaDriver
from edgesite_mapper_opcua.settings import endpoint_of, password_in
from edgesite_mapper_opcua.values import to_variant

from edgesite.mapper import Device, DeviceState, DriverError, Host, Property
from edgesite.mapper.conversion import to_text
from edgesite.net.real import RealClock, RealNet, RealThreads

pytestmark = pytest.mark.anyio

NAMESPACE = "urn:test:plant"
_Kind = ua.VariantType
VARIABLES = {
    "Speed": (ua.Variant(1200, _Kind.Int16), "int"),
    "Level": (ua.Variant(0.5, _Kind.Float), "float"),
    "Flow": (ua.Variant(-1.25, _Kind.Double), "double"),
    "On": (ua.Variant(True, _Kind.Boolean), "boolean"),
    "Label": (ua.Variant("ünit", _Kind.String), "string"),
    "Blob": (ua.Variant(b"\x00\xff", _Kind.ByteString), "bytes"),
    "When": (ua.Variant(datetime.datetime(2026, 1, 2, 3, 4, 5), _Kind.DateTime), "string"),
    "List": (ua.Variant([1, 2, 3], _Kind.Int32), "string"),
}


class OneUser(UserManager):
    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        return User(role=UserRole.User) if (username, password) == ("operator", "s3cret") else None


@pytest.fixture
def host() -> Host:
    return Host(RealNet(), RealClock(), RealThreads(), random.Random(1), logging.getLogger("test"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def plant(
    port: int = 0, *, user_manager: Any = None, pair: tuple[Path, Path] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """A server with `VARIABLES`, all writable; yields what a device says of it."""
    server = Server(user_manager=user_manager)
    await server.init()
    url = f"opc.tcp://127.0.0.1:{port or free_port()}"
    server.set_endpoint(url)
    policies = [ua.SecurityPolicyType.NoSecurity]
    if pair:
        await server.set_application_uri("urn:test:server")
        await server.load_certificate(str(pair[0]))
        await server.load_private_key(str(pair[1]))
        policies = [
            ua.SecurityPolicyType.Basic256Sha256_Sign,
            ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
            ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
            ua.SecurityPolicyType.NoSecurity,
        ]
    server.set_security_policy(policies)
    await server.register_namespace("urn:test:another")
    index = await server.register_namespace(NAMESPACE)
    for name, (value, _) in VARIABLES.items():
        node = await server.nodes.objects.add_variable(ua.NodeId(name, index), f"{index}:{name}", value)
        await node.set_writable()
    await server.start()
    try:
        yield {"url": url}
    finally:
        await server.stop()


def prop(name: str) -> Property:
    return Property(name, VARIABLES[name][1], True, {"nodeID": f"ns=3;s={name}"})


def driver_for(config: dict[str, Any], host: Host) -> OpcUaDriver:
    return OpcUaDriver(Device("default", "plant", "model", "opcua", config, ()), host)


def certificate_of(folder: Path, name: str) -> tuple[Path, Path]:
    key = rsa.generate_private_key(65537, 2048)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.UniformResourceIdentifier(f"urn:test:{name}"), x509.DNSName(socket.gethostname())]
    usage = {"digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_cert_sign"}
    rest = {"key_agreement", "crl_sign", "encipher_only", "decipher_only"}
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([*names, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(x509.KeyUsage(**dict.fromkeys(usage, True), **dict.fromkeys(rest, False)), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.der", folder / f"{name}.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.DER))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def test_values_of_all_types_are_read_and_written(host: Host) -> None:
    async with plant() as config:
        driver = driver_for(config, host)
        await driver.connect()
        read = {name: to_text(prop(name), await driver.read(prop(name))) for name in VARIABLES}
        assert read == {
            "Speed": "1200",
            "Level": "0.5",
            "Flow": "-1.25",
            "On": "true",
            "Label": "ünit",
            "Blob": "AP8=",
            "When": "2026-01-02T03:04:05Z",
            "List": "[1, 2, 3]",
        }
        for name, value in [("Speed", -7), ("Level", 2), ("On", False), ("Label", "b"), ("Blob", b"x")]:
            await driver.write(prop(name), value)
            assert await driver.read(prop(name)) == value
        await driver.write(prop("When"), "2027-01-02T03:04:05+01:00")
        assert await driver.read(prop("When")) == "2027-01-02T02:04:05Z"
        with pytest.raises(DriverError, match="Speed: the variable is of type Int16"):
            await driver.write(prop("Speed"), 70000)
        by_uri = Property("Speed", "int", True, {"nodeID": f"nsu={NAMESPACE};s=Speed"})
        assert await driver.read(by_uri) == -7
        with pytest.raises(DriverError, match="BadNodeIdUnknown"):
            await driver.read(Property("x", "int", True, {"nodeID": "ns=3;s=Nobody"}))
        with pytest.raises(DriverError, match="no namespace urn:nobody"):
            await driver.read(Property("x", "int", True, {"nodeID": "nsu=urn:nobody;i=1"}))
        with pytest.raises(DriverError, match="nodeID of property x"):
            await driver.read(Property("x", "int", True, {"nodeID": "Speed?"}))
        assert await driver.health() is DeviceState.ONLINE

        other = driver_for(config, host)
        await other.connect()
        assert len(host.shared) == 1
        await driver.close()
        assert await other.read(prop("Speed")) == -7
        await other.close()
    assert host.shared == {}


async def test_a_user_is_known_by_a_password_from_a_file(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    async with plant(user_manager=OneUser()) as config:
        driver = driver_for({**config, "userName": "operator", "password": str(file)}, host)
        await driver.connect()
        assert await driver.read(prop("Speed")) == 1200
        await driver.close()
        wrong = driver_for({**config, "userName": "operator", "password": "guess"}, host)
        with pytest.raises(DriverError, match=r"Bad(UserAccessDenied|IdentityToken)") as refused:
            await wrong.connect()
        assert "guess" not in str(refused.value)
        await wrong.close()


async def test_policies_sign_and_encrypt_for_the_right_server_alone(host: Host, tmp_path: Path) -> None:
    server, client, stranger = (certificate_of(tmp_path, name) for name in ("server", "client", "stranger"))
    async with plant(pair=server) as config:
        ours = {"certificate": str(client[0]), "privateKey": str(client[1])}
        for policy, mode in [
            ("Basic256Sha256", "Sign"),
            ("Basic256Sha256", "SignAndEncrypt"),
            ("Aes256_Sha256_RsaPss", ""),
        ]:
            secure = {**config, **ours, "securityPolicy": policy, "securityMode": mode}
            secure["common"] = {"customizedValues": {"remoteCertificate": str(server[0])}}
            driver = driver_for(secure, host)
            await driver.connect()
            await driver.write(prop("Speed"), 5)
            assert await driver.read(prop("Speed")) == 5
            await driver.close()
        driver = driver_for({**config, **ours, "securityPolicy": "Basic256Sha256"}, host)
        await driver.connect()
        await driver.close()
        mistaken = driver_for(
            {**config, **ours, "securityPolicy": "Basic256Sha256", "remoteCertificate": str(stranger[0]), "timeout": 1},
            host,
        )
        with pytest.raises(DriverError):
            await mistaken.connect()
        await mistaken.close()


async def test_a_server_that_comes_back_is_reached_again(host: Host) -> None:
    port = free_port()
    async with plant(port) as config:
        driver = driver_for({**config, "timeout": 1}, host)
        await driver.connect()
    with pytest.raises(DriverError):
        await driver.read(prop("Speed"))
    with pytest.raises(DriverError):
        await driver.health()
    with pytest.raises(DriverError):
        await driver.connect()
    async with plant(port):
        await driver.connect()
        assert await driver.read(prop("Speed")) == 1200
        await driver.close()


async def test_a_server_that_says_nothing_is_given_up_and_let_go(host: Host) -> None:
    ended = [anyio.Event(), anyio.Event()]
    clients = iter(ended)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = next(clients)
        while await reader.read(4096):
            pass
        writer.close()
        over.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    config = {"url": f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", "timeout": 0.3}
    driver = driver_for(config, host)
    with pytest.raises(DriverError):
        await driver.connect()
    driver_of_one_who_left = driver_for({**config, "timeout": 60}, host)
    with anyio.move_on_after(0.3) as scope:
        await driver_of_one_who_left.connect()
    assert scope.cancelled_caught
    with anyio.fail_after(10):
        for one in ended:
            await one.wait()
    await driver.close()
    await driver_of_one_who_left.close()
    server.close()
    assert host.shared == {}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "url is no"),
        ({"url": "http://127.0.0.1"}, "url is no"),
        ({"url": "opc.tcp://a:b@127.0.0.1"}, "say userName and password instead"),
        ({"url": "opc.tcp://127.0.0.1", "securityPolicy": "Basic128Rsa15"}, "is none of None, Basic256Sha256"),
        ({"url": "opc.tcp://127.0.0.1", "securityPolicy": "Basic256Sha256"}, "needs certificate and privateKey"),
        ({"url": "opc.tcp://127.0.0.1", "securityPolicy": 5}, "securityPolicy is no text"),
        ({"url": "opc.tcp://127.0.0.1", "timeout": "soon"}, "timeout is no number"),
        ({"url": "opc.tcp://127.0.0.1", "userName": "a", "password": "/nowhere/at/all"}, "file /nowhere/at/all"),
    ],
)
async def test_a_device_that_says_too_little_or_nonsense_is_told_so(
    config: dict[str, Any], said: str, host: Host
) -> None:
    driver = driver_for(config, host)
    with pytest.raises(DriverError, match=said):
        await driver.connect()
    await driver.close()


@pytest.mark.parametrize(
    "content", [b"-----BEGIN KEY-----\nabc\n", b"root:$6$x:1::\ndaemon:*:2::\n", b"e" * 257, b"\xff\xfe", b"a\rb"]
)
def test_other_files_of_the_node_are_no_password(content: bytes) -> None:
    with pytest.raises(DriverError, match="the file of the password"):
        password_in(content)
    assert password_in("grün \r\n".encode()) == "grün "


def test_a_password_is_in_no_text() -> None:
    config = {"url": "opc.tcp://127.0.0.1", "userName": "a", "password": "s3cret"}
    assert "s3cret" not in repr(endpoint_of(config))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1e39, ua.VariantType.Float),
        (-1, ua.VariantType.UInt64),
        (1 << 63, ua.VariantType.Int64),
        (2.5, ua.VariantType.Int16),
        ("0001-01-01T00:00:00+14:00", ua.VariantType.DateTime),
    ],
)
def test_what_a_variable_cannot_hold_does_not_reach_the_wire(value: Any, kind: ua.VariantType) -> None:
    with pytest.raises(DriverError, match=f"of type {kind.name}"):
        to_variant(value, kind)
