"""One Kubernetes client over two transports, and what controllers are built from: informers, work queues, recorders.

The public names are re-exported here. What only some processes need stays in its own module: ``edgesite.client.http``
(a remote API server) and ``edgesite.client.kubeconfig`` (how to reach one).
"""

from edgesite.client.client import Client, Watch, WatchEvent
from edgesite.client.controller import Controller, Result, TerminalError
from edgesite.client.events import EventRecorder
from edgesite.client.informer import Informer, ObjectKey, SharedInformers, Subscription, key_of
from edgesite.client.transport import CallerTransport, Transport, TransportStream
from edgesite.client.workqueue import RateLimiter, WorkQueue

__all__ = [
    "CallerTransport",
    "Client",
    "Controller",
    "EventRecorder",
    "Informer",
    "ObjectKey",
    "RateLimiter",
    "Result",
    "SharedInformers",
    "Subscription",
    "TerminalError",
    "Transport",
    "TransportStream",
    "Watch",
    "WatchEvent",
    "WorkQueue",
    "key_of",
]
