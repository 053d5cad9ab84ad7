"""The API at the level of HTTP, for what no client library would send: raw requests with the administrator's certificate."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def obj(self) -> Any:
        return json.loads(self.body)


class Api:
    """One API server. A connection for each request, unless the caller holds one (`connect`)."""

    def __init__(self, kubeconfig: Path, *, anonymous: bool = False) -> None:
        whole = yaml.safe_load(kubeconfig.read_text())
        cluster, user = whole["clusters"][0]["cluster"], whole["users"][0]["user"]
        self.host, _, port = cluster["server"].removeprefix("https://").partition(":")
        self.port = int(port)
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.tls = ssl.create_default_context(cadata=ca)
        if not anonymous:
            pair = kubeconfig.with_name("test-admin.pem")
            parts = ("client-certificate-data", "client-key-data")
            pair.write_bytes(b"\n".join(base64.b64decode(user[one]) for one in parts))
            self.tls.load_cert_chain(pair)

    def connect(self, timeout_s: float = 10.0) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=self.tls)

    def raw(self, timeout_s: float = 10.0) -> ssl.SSLSocket:
        """A TLS connection for bytes that are no HTTP."""
        return self.tls.wrap_socket(
            socket.create_connection((self.host, self.port), timeout_s), server_hostname=self.host
        )

    def call(
        self, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None, **more: str
    ) -> Answer:
        """``body`` is bytes as they are, or an object for JSON. Raises OSError, http.client.HTTPException."""
        connection = self.connect()
        try:
            return call_on(connection, method, target, body, headers, **more)
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        return self.call("GET", target, headers=headers)


def call_on(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
) -> Answer:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    typed = {"Content-Type": content_type} if data is not None else {}
    connection.request(method, target, data, {**typed, **(headers or {})})
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
