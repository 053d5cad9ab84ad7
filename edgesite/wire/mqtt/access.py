"""Who may connect and what they may publish and read: files as mosquitto has them.

    passwords = parse_passwords(text)            name → how to check it
    passwords["mapper"].matches(b"secret")       slow by design: call it in a thread
    acl = Acl.parse(text)
    acl.allows(user, client_id, topic, "write")

Password files are mosquitto_passwd's: ``name:$7$iterations$salt$hash`` (PBKDF2, SHA-512) and the older ``name:$6$salt$hash`` (SHA-512), in Base64.
ACL files have lines ``user NAME``, ``topic [read|write|readwrite|deny] FILTER`` and ``pattern [read|write|readwrite|deny] FILTER`` with %u and %c for
user and client id. Topics before the first user are those of anonymous clients; patterns are everybody's. Without a matching line nothing is allowed.

Errors  AccessError names the line.
Bounds  `ITERATIONS` of PBKDF2: a file of somebody else's making must not stop the broker. `CACHED` answers are remembered.
Source  mosquitto 2.0, mosquitto_passwd(1), mosquitto.conf(5) on password_file and acl_file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from edgesite.wire.mqtt.packets import ProtocolError
from edgesite.wire.mqtt.topics import check_filter, matches

__all__ = ["AccessError", "Acl", "Password", "hash_password", "parse_passwords"]

ITERATIONS: Final = 1_000_000
CACHED: Final = 8192
TOPIC_CACHED: Final = 512  #: characters: clients choose topics, and they may have 64 KB
_DEFAULT_ITERATIONS: Final = 101
_MARK: Final = re.compile("%[uc]")
_ACCESS: Final = ("read", "write", "readwrite", "deny")
Access = Literal["read", "write"]


class AccessError(ValueError):
    """A file cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Password:
    """What a password is checked against. ``iterations`` 0: plain SHA-512."""

    iterations: int
    salt: bytes
    digest: bytes = field(repr=False)

    def matches(self, given: bytes) -> bool:
        if self.iterations:
            found = hashlib.pbkdf2_hmac("sha512", given, self.salt, self.iterations, len(self.digest))
        else:
            found = hashlib.sha512(given + self.salt).digest()
        return hmac.compare_digest(found, self.digest)


def hash_password(password: bytes, salt: bytes, iterations: int = _DEFAULT_ITERATIONS) -> str:
    """Return what stands after the name in a password file."""
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def parse_passwords(text: str) -> dict[str, Password]:
    """Read a password file. Raises AccessError."""
    found: dict[str, Password] = {}
    for number, line in _lines(text):
        name, colon, rest = line.partition(":")
        if not name or not colon:
            raise AccessError(f"line {number}: expected NAME:HASH")
        found[name] = _password(rest, number)
    return found


def _password(text: str, number: int) -> Password:
    parts = text.split("$")
    try:
        if len(parts) == 5 and parts[:2] == ["", "7"]:
            iterations = int(parts[2])
            if not 0 < iterations <= ITERATIONS:
                raise AccessError(f"line {number}: iterations must be 1 to {ITERATIONS}")
            made = Password(iterations, _base64(parts[3]), _base64(parts[4]))
        elif len(parts) == 4 and parts[:2] == ["", "6"]:
            made = Password(0, _base64(parts[2]), _base64(parts[3]))
        else:
            raise AccessError(f"line {number}: the password is not hashed as mosquitto_passwd does it")
    except AccessError:
        raise
    except (ValueError, binascii.Error):
        raise AccessError(f"line {number}: the hash cannot be read") from None
    if len(made.digest) != 64:
        raise AccessError(f"line {number}: the hash is not SHA-512")
    return made


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, line


@dataclass(frozen=True, slots=True)
class _Rule:
    access: str
    pattern: str

    def says(self, access: Access) -> bool:
        return self.access in ("readwrite", "deny", access)


class Acl:
    """The rules of a file."""

    def __init__(self) -> None:
        self._users: dict[str, list[_Rule]] = {}
        self._patterns: list[_Rule] = []
        self._cache: dict[tuple[str, str, str, str], bool] = {}

    @classmethod
    def parse(cls, text: str) -> Acl:
        """Read an ACL file. Raises AccessError."""
        made, user = cls(), ""
        for number, line in _lines(text):
            word, _, rest = line.partition(" ")
            rest = rest.strip()
            if word == "user" and rest:
                user = rest
            elif word in ("topic", "pattern") and rest:
                rule = _rule(rest, number)
                (made._patterns if word == "pattern" else made._users.setdefault(user, [])).append(rule)
            else:
                raise AccessError(f"line {number}: expected user, topic or pattern")
        return made

    def allows(self, user: str, client_id: str, topic: str, access: Access) -> bool:
        """Whether a client (``user`` "" is anonymous) may publish to a topic, or read from it."""
        key = (user, client_id, topic, access)
        found = self._cache.get(key)
        if found is None:
            found = self._decide(user, client_id, topic, access)
            if len(self._cache) >= CACHED:
                self._cache.clear()
            if len(topic) <= TOPIC_CACHED:
                self._cache[key] = found
        return found

    def _decide(self, user: str, client_id: str, topic: str, access: Access) -> bool:
        said = [one for one in self._users.get(user, ()) if one.says(access) and matches(one.pattern, topic)]
        for one in self._patterns:
            pattern = _filled(one.pattern, user, client_id)
            if pattern is not None and one.says(access) and matches(pattern, topic):
                said.append(one)
        return bool(said) and all(one.access != "deny" for one in said)


def _rule(text: str, number: int) -> _Rule:
    word, _, rest = text.partition(" ")
    access, pattern = (word, rest.strip()) if word in _ACCESS and rest.strip() else ("readwrite", text)
    try:
        check_filter(pattern)
    except ProtocolError as exc:
        raise AccessError(f"line {number}: {exc}") from None
    return _Rule(access, pattern)


def _filled(pattern: str, user: str, client_id: str) -> str | None:
    """The pattern for this client; None where it cannot be. A name with wildcards in it would open more than its own, and so would one
    that begins with "$" where a topic begins."""
    names = {"%u": user, "%c": client_id}
    for mark, name in names.items():
        if mark in pattern and (not name or any(sign in name for sign in "+#/")):
            return None
    filled = _MARK.sub(lambda found: names[found[0]], pattern)
    return None if filled.startswith("$") and not pattern.startswith("$") else filled
