"""Which devices are here: as the cloud's objects say, and as messages of KubeEdge's clouds say besides.

    object_changed(turn, "device", obj)      a Device object, stored by metamanager; its end with `object_gone`
    update, detail                           membership messages; all that a ``detail`` does not name ends
    twins_told, attributes_told              messages about one device

Errors  Refused and worse are told on MQTT, or counted; nothing leaves but defects.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dtmanager/membership.go, device.go and twin.go (behaviour).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from edgesite.edge.devicetwin import texts, updates
from edgesite.edge.devicetwin.payloads import InAttribute, InDevice, InMembership, InTwin, Refused, read_update
from edgesite.edge.devicetwin.publishing import Publishing
from edgesite.edge.devicetwin.state import Device, Registry
from edgesite.edge.devicetwin.tables import attribute, attribute_statements, removal_statements
from edgesite.edge.devicetwin.turn import Turn
from edgesite.edge.devicetwin.updates import Want
from edgesite.kube import json
from edgesite.kube.devices import to_v1beta1, values
from edgesite.kube.devices.model import PropertyRule, rules_of
from edgesite.kube.gojson import go_json
from edgesite.wire.delivery import version_number

__all__ = ["Membership"]

Object = dict[str, Any]
_NO_RULES: Final[Mapping[str, PropertyRule]] = {}


class _InAttributes(msgspec.Struct):
    event_id: str = ""
    attributes: dict[str, InAttribute | None] | None = None


_attributes: Final = msgspec.json.Decoder(_InAttributes)


class Membership:
    """``own_cloud()`` tells whether the cloud is one of ours, which says all by objects."""

    def __init__(
        self,
        registry: Registry,
        publishing: Publishing,
        count: Callable[[str], None],
        own_cloud: Callable[[], bool],
        gone: Callable[[Device], None],
        restored: Callable[[Device], None],
    ) -> None:
        self._registry = registry
        self._publishing = publishing
        self._count = count
        self._own_cloud = own_cloud
        self._gone = gone
        self._restored = restored  # the API has an older state than was here: it was restored from a backup
        self._models: dict[tuple[str, str], dict[str, PropertyRule]] = {}

    def rules(self, device: Device) -> Mapping[str, PropertyRule]:
        """What the device's model says, as far as it is known here."""
        return self._models.get(device.model, _NO_RULES) if device.model is not None else _NO_RULES

    # -- objects -------------------------------------------------------------------------------------------------

    def object_changed(self, turn: Turn, type_: str, obj: Object, *, loading: bool = False) -> bool:
        """Take a Device or a DeviceModel, of either version; False if only its status or version is new, as when KubeEdge's cloud
        sends down what was reported. ``loading``: from disk, perhaps known already."""
        beta = to_v1beta1({"kind": "Device" if type_ == "device" else "DeviceModel", **obj})
        metadata = beta["metadata"]
        place = str(metadata.get("namespace") or "default"), str(metadata.get("name") or "")
        if type_ == "devicemodel":
            self._model_changed(turn, place, beta)
            return True
        return bool(place[1]) and self._device_changed(turn, place, beta, loading=loading)

    def object_gone(self, turn: Turn, type_: str, namespace: str, name: str) -> None:
        if type_ == "devicemodel":
            self._models.pop((namespace, name), None)
            return
        device = self._registry.at(namespace, name)
        if device is not None:
            self._remove(turn, device)

    def _model_changed(self, turn: Turn, place: tuple[str, str], model: Object) -> None:
        rules = self._models[place] = rules_of(model)
        for device in self._registry:
            if device.model == place:
                self._retype(turn, device, rules)

    def _retype(self, turn: Turn, device: Device, rules: Mapping[str, PropertyRule]) -> None:
        for name, twin in device.twins.items():
            rule = rules.get(name)
            if rule is not None and twin.type != "deleted" and not values.same_type(twin.type, rule.type):
                turn.keep(device, name)
                twin.type = rule.type
                turn.write(device, name, twin)

    def _device_changed(self, turn: Turn, place: tuple[str, str], obj: Object, *, loading: bool) -> bool:
        spec, metadata = obj.get("spec") or {}, obj["metadata"]
        uid, version = str(metadata.get("uid") or ""), version_number(metadata.get("resourceVersion"))
        device = self._registry.at(*place)
        known = device is not None and device.uid == uid
        model = str((spec.get("deviceModelRef") or {}).get("name") or "")
        if device is not None:
            device.silent = _silent(spec)
        if device is not None and loading and known and device.version == version:
            device.model = (place[0], model)
            return False
        new = device is None
        if device is None:
            device = Device(self._registry.free_id(*place), place[1], place[0])
            device.silent = _silent(spec)
            self._add(turn, device)
        self._save(turn, device)
        if known and 0 < version < device.version:
            turn.after.append(lambda: self._restored(device))
        device.namespace, device.uid, device.version = place[0], uid, version
        device.model = (place[0], model)
        device.description = str((metadata.get("labels") or {}).get("description") or "")
        turn.devices[device] = None
        wants = {
            str(one["name"]): _want(one)
            for one in spec.get("properties") or ()
            if isinstance(one, dict) and one.get("name")
        }
        overtaken = not self._own_cloud() and not loading
        changes = updates.wanted(turn, device, wants, version, self.rules(device), overtaken=overtaken)
        if changes.document:
            self._publishing.changed(turn, device, "" if new else self._publishing.new_id(), changes)
        if new:
            self._publishing.membership(turn, added=texts.device_json(device, full=False, with_twins=True))
        digest = hash(json.dumps([spec, metadata.get("labels")]))
        same, device.digest = digest == device.digest, digest
        return not same

    def _save(self, turn: Turn, device: Device) -> None:
        old = device.namespace, device.uid, device.version, device.model, device.description

        def back() -> None:
            device.namespace, device.uid, device.version, device.model, device.description = old

        turn.on_undo(back)

    # -- coming and going ----------------------------------------------------------------------------------------

    def _add(self, turn: Turn, device: Device) -> None:
        self._registry.add(device)
        turn.on_undo(lambda: _do(self._registry.remove, device.id))
        turn.devices[device] = None

    def _remove(self, turn: Turn, device: Device, *, shown: str = "") -> None:
        shown = shown or texts.device_json(device, full=False, with_twins=True)
        self._registry.remove(device.id)
        turn.on_undo(lambda: self._registry.add(device))
        for twin in device.twins.values():
            turn.dirty.pop(twin, None)
            turn.lazy.pop(twin, None)
        turn.devices.pop(device, None)
        turn.statements += removal_statements(device.id)
        turn.after.append(lambda: self._gone(device))
        self._publishing.membership(turn, removed=shown)

    # -- messages ------------------------------------------------------------------------------------------------

    def update(self, turn: Turn, read: InMembership) -> None:
        for one in read.added_devices or ():
            self._added(turn, one)
        for one in read.removed_devices or ():
            device = self._registry.find(one.id)
            if device is not None:
                self._remove(turn, device, shown=_as_given(one))

    def detail(self, turn: Turn, read: InMembership) -> None:
        """All devices that there are."""
        if read.devices is None:
            return
        for one in () if self._own_cloud() else read.devices:  # ours brings devices as objects
            self._added(turn, one)
        kept = {device.id for one in read.devices if (device := self._registry.find(one.id)) is not None}
        for device in list(self._registry):
            if device.id not in kept:
                self._remove(turn, device)

    def _added(self, turn: Turn, given: InDevice) -> None:
        if not given.id:
            return
        device = self._registry.find(given.id)
        new = device is None
        if device is None:
            namespace, _, name = given.id.rpartition("/")
            device = Device(given.id, name, namespace)
            device.description, device.state = given.description, given.state
            self._add(turn, device)
        if new or given.attributes is not None:
            self._set_attributes(turn, device, given.attributes or {})
        changes = updates.cloud(turn, device, given.twin or {}, self.rules(device))
        turn.rejected += [(device, name, text) for name, text in changes.rejected.items()]
        if changes.document or (not new and given.twin is not None):
            self._publishing.changed(turn, device, "", changes)
        if new:
            self._publishing.membership(turn, added=_as_given(given))

    def twins_told(self, turn: Turn, id_text: str, payload: bytes) -> None:
        """Take a cloud's twin update."""
        try:
            update = read_update(payload)
        except Refused as exc:
            self._count("malformed")
            reason = exc.reason[0].lower() + exc.reason[1:]
            self._publishing.unreadable(turn, id_text, "twin/update", exc.code, reason)
            return
        device = self._registry.find(id_text)
        if device is None:
            self._count("refused")
            reason = "update rejected due to the device is not existed"
            self._publishing.error(turn, id_text, "twin/update", update.event_id, 404, reason)
            return
        changes = updates.cloud(turn, device, update.twin or {}, self.rules(device))
        turn.rejected += [(device, name, text) for name, text in changes.rejected.items()]
        self._publishing.changed(turn, device, update.event_id, changes)

    def attributes_told(self, turn: Turn, id_text: str, payload: bytes) -> None:
        """Take changes of a device's attributes; only what changed is told."""
        device = self._registry.find(id_text)
        try:
            read = _attributes.decode(payload)
        except (ValueError, RecursionError):
            self._count("malformed")
            return
        if device is None or not read.attributes:
            self._count("refused")
            return
        attributes = dict(device.attributes or {})
        changed: dict[str, Object | None] = {}
        for name, given in read.attributes.items():
            if given is None:
                if name in attributes and attributes[name]["optional"]:
                    del attributes[name]
                    changed[name] = None
                continue
            new = _attribute(given, attributes.get(name))
            if attributes.get(name) != new:
                attributes[name] = changed[name] = new
        if not changed:
            return
        self._keep_attributes(turn, device)
        device.attributes = attributes or None
        turn.statements += attribute_statements(device.id, attributes)
        head = f'{{"event_id":{texts.quote(read.event_id)},"timestamp":{turn.now_ms},"attributes":'
        self._publishing.attributes(turn, device, f"{head}{go_json(changed)}}}".encode())

    def _set_attributes(self, turn: Turn, device: Device, given: Mapping[str, InAttribute]) -> None:
        attributes = {name: _attribute(one, None) for name, one in given.items()}
        if attributes == (device.attributes or {}):
            return
        self._keep_attributes(turn, device)
        device.attributes = attributes or None
        turn.statements += attribute_statements(device.id, attributes)

    def _keep_attributes(self, turn: Turn, device: Device) -> None:
        old = device.attributes

        def back() -> None:
            device.attributes = old

        turn.on_undo(back)


def _do(action: Callable[[str], object], id_: str) -> None:
    action(id_)


def _silent(spec: Object) -> frozenset[str]:
    """Properties that say themselves that they are not to be reported to the cloud."""
    properties = (one for one in spec.get("properties") or () if isinstance(one, dict))
    return frozenset(str(one.get("name")) for one in properties if one.get("reportToCloud") is False)


def _as_given(given: InDevice) -> str:
    """A device as the cloud has sent it, without versions: so KubeEdge passes it on."""
    shown: Object = {"id": given.id, "name": given.name, "description": given.description, "state": given.state}
    shown = {name: value for name, value in shown.items() if value}
    twins = {name: None if one is None else _twin_as_given(one) for name, one in sorted((given.twin or {}).items())}
    if twins:
        shown["twin"] = twins
    return go_json(shown, sort=False)


def _twin_as_given(one: InTwin) -> Object | None:
    if one.type == "deleted":
        return None
    shown: Object = {}
    for name, side in (("expected", one.expected), ("actual", one.actual)):
        if side is not None:
            time = {"timestamp": side.timestamp} if side.timestamp else {}
            shown[name] = {"value": side.value, "metadata": time}
    if one.optional is not None:
        shown["optional"] = one.optional
    if one.type:
        shown["metadata"] = {"type": one.type}
    return shown


def _want(one: Object) -> Want:
    desired = one.get("desired")
    if not isinstance(desired, dict):
        return Want(None)
    metadata, value = desired.get("metadata"), desired.get("value")
    type_ = metadata.get("type") if isinstance(metadata, dict) else ""
    return Want(value if isinstance(value, str) else None, type_ if isinstance(type_, str) else "")


def _attribute(given: InAttribute, old: Object | None) -> Object:
    type_ = (given.metadata or {}).get("type")
    if old is None:
        optional = True if given.optional is None else given.optional
        return attribute(given.value or "", optional, type_ if isinstance(type_, str) else "string")
    optional = False if given.optional is False else old["optional"]
    value = old["value"] if given.value is None else given.value
    return attribute(value, optional, type_ if isinstance(type_, str) else old["metadata"]["type"])
