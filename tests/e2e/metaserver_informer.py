"""A program with the official client's shared informer; prints each change on a line until its input ends. Argument: URL of the API."""

from __future__ import annotations

import sys

from kubernetes import client
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer

configuration = client.Configuration(host=sys.argv[1])
core = client.CoreV1Api(client.ApiClient(configuration))
informer = SharedInformer(list_func=core.list_namespaced_config_map, namespace="default")


def said(what: str) -> object:
    def tell(obj: object) -> None:
        metadata = obj.metadata if hasattr(obj, "metadata") else obj
        data = getattr(obj, "data", None) or {}
        print(what, metadata.name, data.get("n", ""), flush=True)

    return tell


for event in (ADDED, MODIFIED, DELETED):
    informer.add_event_handler(event, said(event))
informer.start()
sys.stdin.read()
informer.stop()
