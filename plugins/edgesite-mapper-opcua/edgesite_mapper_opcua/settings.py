"""How an OPC UA server is reached, as a device says it, and the words of its security policies.

Words of a device: ``url``, ``userName``, ``password``, ``securityPolicy``, ``securityMode``, ``certificate``, ``privateKey``, ``timeout``; in
``common.customizedValues`` or beside them: ``remoteCertificate``, ``userCertificate``, ``userPrivateKey``.

Files are named by absolute paths. A ``password`` that is one is read from there, as KubeEdge's mapper does, but without losing its last byte. It is one line of at most
`PASSWORD_BYTES`: it goes to the server that the device names, and who writes a Device shall not have keys, tokens and other files of the node sent there.

Errors  DriverError, which names what is wrong, and never a password.
Source  KubeEdge v1.12, mappers-go mappers/opcua (words); OPC UA part 7 (policies).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edgesite.mapper import DriverError

__all__ = ["MODES", "POLICIES", "Endpoint", "endpoint_of", "file_of", "password_in"]

TIMEOUT_S: Final = 4.0
FILE_BYTES: Final = 1 << 20
PASSWORD_BYTES: Final = 256
#: The word of a policy, without case and marks → the name of asyncua's class; the deprecated ones (SHA-1) are not among them.
POLICIES: Final = {
    "": "",
    "none": "",
    "basic256sha256": "SecurityPolicyBasic256Sha256",
    "aes128sha256rsaoaep": "SecurityPolicyAes128Sha256RsaOaep",
    "aes256sha256rsapss": "SecurityPolicyAes256Sha256RsaPss",
}
MODES: Final = {"": "SignAndEncrypt", "sign": "Sign", "signandencrypt": "SignAndEncrypt"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Devices that name equal ones share a session."""

    url: str
    policy: str = ""  #: name of asyncua's class; "": none
    mode: str = "SignAndEncrypt"
    certificate: str = ""
    private_key: str = ""
    remote_certificate: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    user_certificate: str = ""
    user_private_key: str = ""
    timeout_s: float = TIMEOUT_S


def endpoint_of(config: Mapping[str, Any]) -> Endpoint:
    """Raises DriverError."""
    common = config.get("common")
    besides = common.get("customizedValues") if isinstance(common, Mapping) else None
    words = {**(besides if isinstance(besides, Mapping) else {}), **config}

    def text(name: str) -> str:
        value = words.get(name)
        if value is not None and not isinstance(value, str):
            raise DriverError(f"{name} is no text")
        return value or ""

    policy = POLICIES.get("".join(one for one in text("securityPolicy").lower() if one.isalnum()))
    mode = MODES.get(text("securityMode").lower().replace("none", ""))
    if policy is None:
        raise DriverError(f"securityPolicy {text('securityPolicy')!r} is none of None, {', '.join(_policy_words())}")
    if mode is None:
        raise DriverError("securityMode is neither Sign nor SignAndEncrypt")
    if policy and text("securityMode").lower() == "none":
        raise DriverError("a securityPolicy goes with securityMode Sign or SignAndEncrypt")
    found = Endpoint(
        _checked_url(text("url")),
        policy,
        mode,
        text("certificate"),
        text("privateKey"),
        text("remoteCertificate"),
        text("userName"),
        text("password"),
        text("userCertificate"),
        text("userPrivateKey"),
        _timeout(words.get("timeout")),
    )
    if policy and not (found.certificate and found.private_key):
        raise DriverError("a securityPolicy needs certificate and privateKey")
    if bool(found.user_certificate) != bool(found.user_private_key):
        raise DriverError("userCertificate and userPrivateKey go together")
    return found


def file_of(path: str) -> bytes:
    """Blocking. Raises DriverError."""
    if not path.startswith("/"):
        raise DriverError(f"file {path!r} is not named by an absolute path")
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as exc:
        raise DriverError(f"file {path} cannot be read: {exc.strerror}") from exc
    if len(content) > FILE_BYTES:
        raise DriverError(f"file {path} is larger than {FILE_BYTES} bytes")
    return content


def password_in(content: bytes) -> str:
    """The password that a file holds. Raises DriverError."""
    line = content.rstrip(b"\r\n")
    if len(line) > PASSWORD_BYTES or len(line.splitlines()) > 1:
        raise DriverError(f"the file of the password is not one line of at most {PASSWORD_BYTES} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise DriverError("the file of the password is no text") from None


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_well = parts.scheme == "opc.tcp" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_well = False
    if not is_well:
        raise DriverError("url is no opc.tcp://HOST:PORT/...")
    if parts.username is not None:
        raise DriverError("url holds a user: say userName and password instead")
    return url


def _timeout(value: Any) -> float:
    if value in (None, "", 0):
        return TIMEOUT_S
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise DriverError("timeout is no number of seconds") from None
    if not 0 < seconds <= 600:
        raise DriverError("timeout is not within 0 to 600 seconds")
    return seconds


def _policy_words() -> list[str]:
    return [name.removeprefix("SecurityPolicy") for name in POLICIES.values() if name]
