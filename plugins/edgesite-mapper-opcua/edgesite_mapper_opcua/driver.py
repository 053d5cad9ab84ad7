"""The driver of one OPC UA server, or of one machine behind it: each property is a variable, named by its node id.

A node id may name its namespace by URI (``nsu=urn:plant;s=Speed``), for a server may number its namespaces anew when it starts.

Errors  DriverError, with the server's status code by name. A value whose status is bad is none.
State   The device's part in its session, and for each variable what was asked once: its id and type. Gone with the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from asyncua import ua

from edgesite.mapper import DeviceState, DriverError
from edgesite_mapper_opcua.session import Session
from edgesite_mapper_opcua.settings import endpoint_of
from edgesite_mapper_opcua.values import from_variant, to_variant

if TYPE_CHECKING:
    from asyncua.client import Client

    from edgesite.mapper import Device, Host, Property, Value

__all__ = ["OpcUaDriver"]

_STATE: Final = ua.NodeId(ua.Int32(ua.object_ids.ObjectIds.Server_ServerStatus_State))
_RUNNING: Final = 0


class OpcUaDriver:
    protocol: ClassVar[str] = "opcua"

    def __init__(self, device: Device, host: Host) -> None:
        self._device = device
        self._host = host
        self._session: Session | None = None
        self._ids: dict[str, ua.NodeId] = {}
        self._kinds: dict[ua.NodeId, ua.VariantType] = {}

    async def connect(self) -> None:
        self._ids.clear()
        self._kinds.clear()
        endpoint = endpoint_of(self._device.config)
        if self._session is None:
            self._session = Session.of(self._host, endpoint)
        await self._session.connect()

    async def read(self, prop: Property) -> Value:
        node = await self._node(prop)
        found = await self._ask(lambda client: client.get_node(node).read_data_value(raise_on_bad_status=False))
        if found.StatusCode is not None and found.StatusCode.is_bad():
            raise DriverError(f"property {prop.name}: {found.StatusCode.name}")
        return from_variant(found.Value.Value if found.Value is not None else None)

    async def write(self, prop: Property, value: Value) -> None:
        node = await self._node(prop)
        kind = self._kinds.get(node)
        if kind is None:
            kind = await self._ask(lambda client: client.get_node(node).read_data_type_as_variant_type())
            self._kinds[node] = kind
        try:
            wanted = ua.DataValue(to_variant(value, kind))  # no times: many servers refuse to be told them
        except DriverError as exc:
            raise DriverError(f"property {prop.name}: {exc}") from exc
        await self._ask(lambda client: client.get_node(node).write_value(wanted))

    async def health(self) -> DeviceState:
        state = await self._ask(lambda client: client.get_node(_STATE).read_value())
        return DeviceState.ONLINE if int(state) == _RUNNING else DeviceState.UNHEALTHY

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.release()

    async def _node(self, prop: Property) -> ua.NodeId:
        """Raises DriverError."""
        words = str(prop.visitor.get("nodeID") or "")
        node = self._ids.get(words)
        if node is not None:
            return node
        text = words
        if words.startswith("nsu="):
            uri, _, rest = words[4:].partition(";")
            index = await self._ask(lambda client: self._index(client, uri))
            text = f"ns={index};{rest}"
        try:
            node = ua.NodeId.from_string(text)
        except (ua.uaerrors.UaError, ValueError, TypeError) as exc:
            raise DriverError(f"nodeID of property {prop.name} is none, as ns=2;s=Speed") from exc
        self._ids[words] = node
        return node

    @staticmethod
    async def _index(client: Client, uri: str) -> int:
        try:
            return int(await client.get_namespace_index(uri))
        except ValueError as exc:
            raise DriverError(f"the server has no namespace {uri}") from exc

    async def _ask(self, request: Any) -> Any:
        if self._session is None:
            raise DriverError("the server is not connected")
        return await self._session.ask(request)
