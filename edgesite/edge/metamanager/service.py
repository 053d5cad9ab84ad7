"""`Meta` as metamanager provides it: stored objects, and questions to the cloud over the hub.

Errors  ApiError, as the interface says. A disk that fails is 500 InternalError.
State   Whether there is a link; everything else is in the store and the outbox.
Source  KubeEdge v1.12.7, edge/pkg/metamanager and its client.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.metamanager import schema
from edgesite.edge.metamanager.outbox import Outbox
from edgesite.edge.metamanager.store import CLUSTER_TYPES, Arrival, EdgeStore, StoreError
from edgesite.kube import json
from edgesite.kube.errors import ApiError, internal, unavailable
from edgesite.kube.times import InvalidTime, parse_time
from edgesite.wire import resource
from edgesite.wire.delivery import ObjectRef
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation, error_status

if TYPE_CHECKING:
    from edgesite.context import Bus, Clock

__all__ = ["MetaService", "key_for", "object_in_answer"]

HUB: Final = "websocket"  #: EdgeHub's name on the bus
_PATCH_TYPES: Final = {"pod": "podpatch", "node": "nodepatch"}
_FINAL: Final = frozenset({"Failed", "Succeeded"})
_ENDING: Final = ("phase", "reason", "message")  #: of a pod's status
_ASKED_OFTEN: Final = frozenset({"csidriver", "csinode", "runtimeclass", "servicelist"})
_TOKEN_MOST_S: Final = 24 * 3600.0


def key_for(type_: str, namespace: str, name: str = "") -> str:
    """The resource string of an object. KubeEdge's edge says "default" for what has no namespace."""
    if type_ in CLUSTER_TYPES or type_ == "nodepatch":
        namespace = "default"
    return resource.build(namespace, type_, name)


def object_in_answer(answer: Message) -> dict[str, Any]:
    """Return the object of an answer, plain or in an ObjectResp. Raises ApiError if it is a refusal."""
    content = answer.content
    status = error_status(content)
    if status is None and isinstance(content, dict) and "Err" in content and "Object" in content:
        status = error_status(content["Err"])
        content = content["Object"]
    if status is not None:
        raise ApiError.from_status(status)
    if answer.operation == Operation.ERROR:
        raise unavailable(f"the cloud refused: {content!s:.200}")
    if content is None or content == "OK":
        return {}
    try:
        return Message("", content=content, resource=answer.resource).object()
    except InvalidMessage as exc:
        raise unavailable(f"the cloud's answer is no object: {exc}") from exc


class MetaService:
    """Implements `edgesite.edge.metamanager.Meta`."""

    def __init__(self, store: EdgeStore, outbox: Outbox, bus: Bus, maker: MessageMaker, clock: Clock) -> None:
        self._store = store
        self._outbox = outbox
        self._bus = bus
        self._maker = maker
        self._clock = clock
        self._connected = anyio.Event()

    # -- the link ------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        await self._connected.wait()

    def set_connected(self, connected: bool) -> None:
        """Called by the module when the hub tells of the link."""
        if connected:
            self._connected.set()
        elif self._connected.is_set():
            self._connected = anyio.Event()

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, type: str, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._store.get(key_for(type, namespace, name))
        except StoreError as exc:
            raise internal(str(exc)) from exc

    async def list(self, type: str, namespace: str | None = None) -> list[dict[str, Any]]:
        try:
            found = await self._store.list(type, namespace)
        except StoreError as exc:
            raise internal(str(exc)) from exc
        if type == "pod" and len(self._outbox):
            for pod in found:
                self._add_end(pod)
        return found

    def _add_end(self, pod: dict[str, Any]) -> None:
        """Let a pod have the final phase that waits to be reported: one that was evicted without a link stays so over a restart."""
        metadata = pod["metadata"]
        path = key_for(_PATCH_TYPES["pod"], metadata.get("namespace") or "", metadata["name"])
        message = self._outbox.waiting(f"{path}/{metadata.get('uid') or ''}")
        if message is None or not isinstance(message.content, str):
            return
        status = json.loads(message.content.encode()).get("status") or {}
        if status.get("phase") in _FINAL:
            pod["status"] = {**(pod.get("status") or {}), **{one: status[one] for one in _ENDING if one in status}}

    def has_ended(self, uid: str) -> bool:
        return self._store.has_ended(uid)

    async def holdings(self) -> Sequence[ObjectRef]:
        return await self._store.holdings()

    async def forget(self, uids: Iterable[str]) -> None:
        try:
            await self._store.forget(uids)
        except StoreError as exc:
            raise internal(str(exc)) from exc

    async def query_remote(
        self, type: str, namespace: str, name: str, content: Any = None, *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        key = key_for(type, namespace, name)
        try:
            answer = await self._call(Operation.QUERY, key, content, timeout_s)
            found = object_in_answer(answer)
        except ApiError as exc:
            if exc.code < 500 and exc.code != 429:
                raise
            stored = await self.get(type, namespace, name)
            if stored is None:
                raise
            return stored
        await self._keep(answer, found)
        return found

    async def _keep(self, answer: Message, found: dict[str, Any]) -> None:
        """Store what the cloud answered, then acknowledge it. A lease is worth nothing later and spares the disk, as does what is
        asked for again and again and seldom changes."""
        path = resource.parse(answer.resource)
        if path.type not in ("lease", "serviceaccounttoken"):
            try:
                if path.type not in _ASKED_OFTEN or await self._store.get(answer.resource) != found:
                    await self._store.apply([Arrival(answer.resource, found)])
            except StoreError as exc:
                raise internal(str(exc)) from exc
        try:
            await self._bus.send(HUB, self._maker.ack(answer))
        except LookupError:
            return  # the link is gone, and with it the session that would want to know

    async def token(self, namespace: str, service_account: str, request: dict[str, Any]) -> dict[str, Any]:
        key = schema.token_key(namespace, service_account, request)
        stored = await self._stored_token(key)
        now = self._clock.time()
        if stored is not None and self._is_fresh(stored, now):
            return stored
        try:
            path = key_for("serviceaccounttoken", namespace, service_account)
            answer = await self._call(Operation.QUERY, path, request, 10.0)
            found = object_in_answer(answer)
        except ApiError as exc:
            if exc.code >= 500 and stored is not None and _expiry(stored) > now:
                return stored
            raise
        try:
            await self._store.put_text(key, "serviceaccounttoken", json.dumps(found).decode())
        except StoreError as exc:
            raise internal(str(exc)) from exc
        return found

    async def _stored_token(self, key: str) -> dict[str, Any] | None:
        try:
            return await self._store.get(key)
        except StoreError as exc:
            raise internal(str(exc)) from exc

    def _is_fresh(self, token: dict[str, Any], now: float) -> bool:
        """KubeEdge's rule: not older than four fifths of its life, nor than a day."""
        expiry = _expiry(token)
        life = float((token.get("spec") or {}).get("expirationSeconds") or 3600)
        return now < expiry - life / 5 and now < expiry - life + _TOKEN_MOST_S

    # -- writing, answered now -----------------------------------------------------------------------------------

    async def insert(
        self, type: str, namespace: str, name: str, obj: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        return await self._write(Operation.INSERT, type, namespace, name, obj, timeout_s)

    async def update(
        self, type: str, namespace: str, name: str, obj: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        found = await self._write(Operation.UPDATE, type, namespace, name, obj, timeout_s)
        # To an update of a node the cloud only says "OK".
        return found or await self.query_remote(type, namespace, name, timeout_s=timeout_s)

    async def patch(
        self, type: str, namespace: str, name: str, patch: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        text = json.dumps(patch).decode()
        return await self._write(Operation.PATCH, _PATCH_TYPES.get(type, type), namespace, name, text, timeout_s)

    async def _write(
        self, operation: str, type_: str, namespace: str, name: str, content: Any, timeout_s: float
    ) -> dict[str, Any]:
        found = object_in_answer(await self._call(operation, key_for(type_, namespace, name), content, timeout_s))
        if found and type_ in ("node", "nodepatch"):
            try:
                await self._store.apply([Arrival(key_for("node", "", name), found)])
            except StoreError as exc:
                raise internal(str(exc)) from exc
        return found

    async def _call(self, operation: str, path: str, content: Any, timeout_s: float) -> Message:
        """Ask the cloud. Raises ApiError 503 at once without a link, 504 when no answer comes in time."""
        if not self.connected:
            raise unavailable("there is no link to the cloud")
        request = self._maker.make("edged", "meta", operation, path, content)
        try:
            return await self._bus.call(HUB, request, timeout_s=timeout_s)
        except TimeoutError:
            raise ApiError(504, "Timeout", f"the cloud did not answer {operation} {path} in {timeout_s:g} s") from None
        except LookupError as exc:
            raise unavailable("there is no link to the cloud") from exc

    # -- reports -------------------------------------------------------------------------------------------------

    async def report_status(self, type: str, namespace: str, name: str, patch: dict[str, Any]) -> None:
        uid = str((patch.get("metadata") or {}).get("uid") or "")
        path = key_for(_PATCH_TYPES[type], namespace, name)
        message = self._maker.make("edged", "meta", Operation.PATCH, path, json.dumps(patch).decode())
        await self._report(f"{path}/{uid}", f"{type}/{namespace}/{name}", message)

    async def confirm_deleted(self, namespace: str, name: str, uid: str) -> None:
        path = key_for("pod", namespace, name)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        message = self._maker.make("edged", "meta", Operation.DELETE, path, options)
        await self._report(f"{path}/{uid}", f"pod/{namespace}/{name}", message)

    async def report_event(self, event: dict[str, Any]) -> None:
        metadata = event["metadata"]
        path = key_for("event", metadata.get("namespace") or "default", metadata["name"])
        operation = Operation.UPDATE if int(event.get("count") or 1) > 1 else Operation.INSERT
        message = self._maker.make("edged", "meta", operation, path, event)
        await self._report(f"event/{path}", f"event/{path}", message, is_event=True)

    async def _report(self, key: str, object_: str, message: Message, *, is_event: bool = False) -> None:
        statements = self._outbox.put(key, object_, message, is_event=is_event)
        try:
            if statements:
                await self._store.write(statements)
            if not self.connected:
                await self.save_outbox()
        except StoreError as exc:
            raise internal(str(exc)) from exc

    async def save_outbox(self) -> None:
        """Write down the reports that only memory has. Raises StoreError."""
        entries, statements = self._outbox.unsaved()
        if not entries:
            return
        for entry in entries:
            entry.saved = True
        try:
            await self._store.write(statements)
        except BaseException:
            for entry in entries:
                entry.saved = False
            raise


def _expiry(token: dict[str, Any]) -> float:
    try:
        return parse_time(str((token.get("status") or {}).get("expirationTimestamp") or ""))
    except InvalidTime:
        return 0.0
