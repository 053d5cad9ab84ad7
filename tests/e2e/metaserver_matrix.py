"""Tries each token with each verb at a MetaServer and prints the status codes as JSON.

Arguments: the CA's file, a file with {kind of token: token}, a word that makes names unique.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from pathlib import Path

ca, tokens, word = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
OBJECTS = "/api/v1/namespaces/default/configmaps"
context = ssl.create_default_context(cafile=ca)


def ask(token: str, method: str, path: str, body: object = None, kind: str = "application/json") -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", 10550, context=context, timeout=40)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None if body is None else json.dumps(body)
    if data:
        headers["Content-Type"] = kind
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    status = answer.status
    connection.close()
    return status


rows = {}
for at, (name, token) in enumerate(tokens.items()):
    made = f"made-{word}-{at}"
    new = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": made}}
    rows[name] = {
        "get": ask(token, "GET", f"{OBJECTS}/seen"),
        "list": ask(token, "GET", OBJECTS),
        "watch": ask(token, "GET", f"{OBJECTS}?watch=true&timeoutSeconds=1&resourceVersion=0"),
        "secrets": ask(token, "GET", "/api/v1/namespaces/default/secrets"),
        "create": ask(token, "POST", OBJECTS, new),
        "patch": ask(token, "PATCH", f"{OBJECTS}/seen", {"data": {"n": "2"}}, "application/merge-patch+json"),
        "delete": ask(token, "DELETE", f"{OBJECTS}/{made}"),
    }
print(json.dumps(rows))
