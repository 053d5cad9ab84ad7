"""How twins change: by clients here, by messages of KubeEdge's cloud, and by what a Device object wants.

    local(turn, device, twins, rules)       all keys or none; Refused with KubeEdge's code and words
    cloud(turn, device, twins, rules)       key by key; what is older than here is rejected, and the cloud told so
    wanted(turn, device, wants, version)    the desired values of a Device object

Each returns `Changes`. A local change counts the version of that side up by one; the cloud's is taken if neither of its numbers is
lower than ours. KubeEdge's clouds always say 0 for the edge's, so that a value once changed here rejects all that follow. A
Device object does not: what the cloud wants counts if the cloud has changed it, and a change made here stays as long as it has not.

Decided differently from KubeEdge: a side without a value is refused; values are checked on a twin's first report, too, and
against the model; an equal value is told, but not written at once.

Units   Times are milliseconds since the Unix epoch.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dtmanager/twin.go (behaviour).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgesite.edge.devicetwin.payloads import InTwin, InValue, InVersion, Refused
from edgesite.edge.devicetwin.state import DELETED, Device, Twin
from edgesite.edge.devicetwin.texts import twin_json
from edgesite.edge.devicetwin.turn import ACTUAL, EXPECTED, Turn
from edgesite.kube.devices import values
from edgesite.kube.devices.model import PropertyRule

__all__ = ["Changes", "Want", "cloud", "local", "wanted"]

Rules = Mapping[str, PropertyRule]
MOST_TWINS: Final = (
    4096  #: of one device, made by clients or by messages: those that an object names are as many as it holds
)
MOST_VALUE: Final = 256 << 10  #: characters of a reported value; those of MQTT clients have 512
_BOTH: Final = EXPECTED | ACTUAL
_NOT_EVERYWHERE: Final = frozenset({"double", "bytes"})  #: types that need a model: KubeEdge's edge refuses them


@dataclass(slots=True)
class Changes:
    """``result`` holds the touched twins as a client is answered, ``document`` each as it was and as it is, ``rejected`` what the
    cloud is told instead of what it wanted."""

    result: dict[str, str] = field(default_factory=dict)
    document: dict[str, tuple[str, str]] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Want:
    """What a Device object says of one property; ``value`` is None if it wants nothing of it."""

    value: str | None
    type: str = ""


def local(turn: Turn, device: Device, twins: Mapping[str, InTwin | None], rules: Rules) -> Changes:
    """Take a client's update. Raises Refused, and has changed nothing then."""
    changes, mark = Changes(), turn.mark
    told = len(turn.told)
    try:
        for name, given in twins.items():
            twin = device.twins.get(name)
            if given is None:
                if twin is not None:
                    _delete_local(turn, device, name, twin, changes)
            elif twin is None:
                _add_local(turn, device, name, given, rules.get(name), changes)
            else:
                _merge_local(turn, device, name, twin, given, rules.get(name), changes)
    except Refused:
        turn.undo(mark)
        del turn.told[told:]
        raise
    return changes


def _add_local(
    turn: Turn, device: Device, name: str, given: InTwin, rule: PropertyRule | None, changes: Changes
) -> None:
    if len(device.twins) >= MOST_TWINS:
        raise Refused(400, f"a device has at most {MOST_TWINS} twins")
    type_ = _type(given.type, rule)
    if type_ == DELETED or (rule is None and type_ in _NOT_EVERYWHERE):
        raise Refused(400, values.NOT_ALLOWED)
    twin = Twin(turn.rows(), type_, optional=True if given.optional is None else given.optional)
    turn.keep(device, name)
    sides = _set_local(twin, given, rule, turn.now_ms)
    device.twins[name] = twin
    turn.write(device, name, twin)
    _note(turn, device, name, "null", twin, sides, changes)


def _merge_local(
    turn: Turn, device: Device, name: str, twin: Twin, given: InTwin, rule: PropertyRule | None, changes: Changes
) -> None:
    before = turn.keep(device, name)
    assert before is not None
    last = "null" if twin.type == DELETED else twin_json(twin)
    if twin.type == DELETED:
        twin.type = _type(given.type, rule)
    if given.optional is False:
        twin.optional = False
    sides = _set_local(twin, given, rule, turn.now_ms)
    if not sides and before.type == twin.type and before.optional == twin.optional:
        return
    same = before.type == twin.type and before.optional == twin.optional
    if same and before.actual == twin.actual and before.expected == twin.expected:
        turn.lazy[twin] = (device.id, name)
    else:
        turn.write(device, name, twin)
    if sides & EXPECTED and twin.expected != before.expected:
        _override(turn, device, name, before)
    _note(turn, device, name, last, twin, sides, changes)


def _set_local(twin: Twin, given: InTwin, rule: PropertyRule | None, now_ms: int) -> int:
    """Set the given sides; returns which. Raises Refused."""
    sides = 0
    if given.expected is not None:
        if rule is not None and rule.read_only:
            raise Refused(400, "the property is read-only in its model")
        twin.expected = _checked(twin.type, given.expected, rule)
        twin.expected_ms = now_ms
        twin.expected_edge += 1
        sides |= EXPECTED
    if given.actual is not None:
        twin.actual = _checked(twin.type, given.actual, rule)
        twin.actual_ms = now_ms
        twin.actual_edge += 1
        sides |= ACTUAL
    return sides


def _checked(type_: str, side: InValue, rule: PropertyRule | None) -> str:
    if side.value is None:
        raise Refused(400, "the value is missing")
    if len(side.value) > MOST_VALUE:
        raise Refused(400, f"the value has more than {MOST_VALUE} characters")
    why = rule.problem(side.value) if rule is not None else values.problem(type_, side.value)
    if why:
        raise Refused(400, why)
    return side.value


def _type(said: str, rule: PropertyRule | None) -> str:
    """The type of a new twin: as it is said, if the model allows this word for its own."""
    if rule is None:
        return said or "string"
    return said if said and values.same_type(said, rule.type) else rule.type


def _override(turn: Turn, device: Device, name: str, before: Twin) -> None:
    """Remember what the cloud wanted, to see when it changes its mind."""
    old = device.overridden
    if name not in (old or {}) and before.expected is not None and device.uid:
        _set_overridden(turn, device, {**(old or {}), name: before.expected})


def _delete_local(turn: Turn, device: Device, name: str, twin: Twin, changes: Changes) -> None:
    if not twin.optional or twin.type == DELETED:
        return
    turn.keep(device, name)
    last = twin_json(twin)
    twin.expected_edge += twin.expected is not None
    twin.actual_edge += twin.actual is not None
    _clear(twin)
    turn.write(device, name, twin)
    turn.told.append((device, name, _BOTH))
    changes.result[name] = "null"
    changes.document[name] = (last, "null")


def _clear(twin: Twin) -> None:
    twin.expected = twin.actual = twin.observed = None
    twin.expected_ms = twin.actual_ms = 0
    twin.type = DELETED


def _note(turn: Turn, device: Device, name: str, last: str, twin: Twin, sides: int, changes: Changes) -> None:
    changes.result[name] = twin_json(twin, sides=sides)
    changes.document[name] = (last, twin_json(twin))
    turn.told.append((device, name, sides))


# -- the cloud's messages --------------------------------------------------------------------------------------------


def cloud(turn: Turn, device: Device, twins: Mapping[str, InTwin | None], rules: Rules) -> Changes:
    """Take what a cloud of KubeEdge v1.12 wants."""
    changes = Changes()
    for name, given in twins.items():
        if given is None:
            continue
        twin = device.twins.get(name)
        if twin is None:
            _add_cloud(turn, device, name, given, rules.get(name), changes)
        elif given.type == DELETED:
            _delete_cloud(turn, device, name, twin, given, changes)
        else:
            _merge_cloud(turn, device, name, twin, given, rules.get(name), changes)
    return changes


def _add_cloud(
    turn: Turn, device: Device, name: str, given: InTwin, rule: PropertyRule | None, changes: Changes
) -> None:
    type_ = _type(given.type, rule)
    if type_ == DELETED or (rule is None and type_ in _NOT_EVERYWHERE) or len(device.twins) >= MOST_TWINS:
        return
    twin = Twin(turn.rows(), type_, optional=True if given.optional is None else given.optional)
    for side, version, bit in _sides(given):
        why = _why_not(type_, side, rule, is_expected=bit == EXPECTED)
        if version is None or why:
            return
        if side.value:
            _set_side(twin, bit, side.value, turn.now_ms, version)
    turn.keep(device, name)
    device.twins[name] = twin
    turn.write(device, name, twin)
    changes.document[name] = ("null", twin_json(twin))


def _merge_cloud(
    turn: Turn, device: Device, name: str, twin: Twin, given: InTwin, rule: PropertyRule | None, changes: Changes
) -> None:
    last = "null" if twin.type == DELETED else twin_json(twin)
    before = turn.keep(device, name)
    assert before is not None
    changed = False
    if twin.type == DELETED:
        twin.type = _type(given.type, rule)
    for side, version, bit in _sides(given):
        if _why_not(twin.type, side, rule, is_expected=bit == EXPECTED) or side.value is None:
            continue
        if not _is_newer(twin, bit, version):
            changes.rejected[name] = twin_json(twin, versions=True, sides=bit)
            break
        _set_side(twin, bit, side.value, turn.now_ms, version or InVersion())
        changed = True
    if given.optional is False and twin.optional:
        twin.optional, changed = False, True
    if not changed:
        twin.type = before.type
        return
    turn.write(device, name, twin)
    changes.document[name] = (last, twin_json(twin))


def _delete_cloud(turn: Turn, device: Device, name: str, twin: Twin, given: InTwin, changes: Changes) -> None:
    if twin.type == DELETED:
        return
    turn.keep(device, name)
    last = twin_json(twin)
    if given.expected_version is not None:
        twin.expected_cloud = max(twin.expected_cloud, given.expected_version.cloud)
    _clear(twin)
    turn.write(device, name, twin)
    changes.document[name] = (last, "null")


def _sides(given: InTwin) -> list[tuple[InValue, InVersion | None, int]]:
    found = []
    if given.expected is not None:
        found.append((given.expected, given.expected_version, EXPECTED))
    if given.actual is not None:
        found.append((given.actual, given.actual_version, ACTUAL))
    return found


def _why_not(type_: str, side: InValue, rule: PropertyRule | None, *, is_expected: bool) -> str:
    if is_expected and rule is not None and rule.read_only:
        return "read-only"
    value = side.value or ""
    return rule.problem(value) if rule is not None else values.problem(type_, value)


def _is_newer(twin: Twin, bit: int, version: InVersion | None) -> bool:
    if version is None:
        return False
    cloud, edge = (
        (twin.expected_cloud, twin.expected_edge) if bit == EXPECTED else (twin.actual_cloud, twin.actual_edge)
    )
    return cloud <= version.cloud and edge <= version.edge


def _set_side(twin: Twin, bit: int, value: str, now_ms: int, version: InVersion) -> None:
    if bit == EXPECTED:
        twin.expected, twin.expected_ms = value, now_ms
        twin.expected_cloud, twin.expected_edge = version.cloud, version.edge
    else:
        twin.actual, twin.actual_ms = value, now_ms
        twin.actual_cloud, twin.actual_edge = version.cloud, version.edge


# -- Device objects --------------------------------------------------------------------------------------------------


def wanted(
    turn: Turn, device: Device, wants: Mapping[str, Want], version: int, rules: Rules, *, overtaken: bool = False
) -> Changes:
    """Take what a Device object wants; ``version`` is its resourceVersion. Twins of properties that it no longer has end.

    ``overtaken``: the cloud is KubeEdge's, whose messages about twins may be newer than an object that comes after them.
    """
    changes = Changes()
    for name, want in wants.items():
        rule = rules.get(name)
        type_ = _type(want.type, rule)
        value = values.wished(type_, want.value or "") or None
        if value is not None and (
            values.problem(type_, value) if rule is None else rule.read_only or rule.problem(value)
        ):
            continue  # it would be refused where it was written, were it not for a model that has changed since
        twin = device.twins.get(name)
        if twin is None:
            if value is not None:  # however many twins clients have made
                _add_wanted(turn, device, name, value, type_, version, changes)
        elif not (overtaken and twin.expected is not None and twin.expected_cloud > version):
            if rule is None and not want.type and twin.type != DELETED:
                type_ = twin.type
            _change_wanted(turn, device, name, twin, value, type_, version, changes)
    for name, twin in device.twins.items():
        if name not in wants and not twin.optional and twin.type != DELETED:
            turn.keep(device, name)
            last = twin_json(twin)
            twin.expected_cloud = version
            _clear(twin)
            turn.write(device, name, twin)
            changes.document[name] = (last, "null")
    return changes


def _add_wanted(turn: Turn, device: Device, name: str, value: str, type_: str, version: int, changes: Changes) -> None:
    twin = Twin(turn.rows(), type_, optional=False)
    _set_side(twin, EXPECTED, value, turn.now_ms, InVersion(version, 0))
    turn.keep(device, name)
    device.twins[name] = twin
    turn.write(device, name, twin)
    changes.document[name] = ("null", twin_json(twin))


def _change_wanted(
    turn: Turn, device: Device, name: str, twin: Twin, value: str | None, type_: str, version: int, changes: Changes
) -> None:
    before, same = _cloud_value(device, name, twin) or None, values.same_type(twin.type, type_)
    if value == before and same and twin.type != DELETED:
        return
    last = "null" if twin.type == DELETED else twin_json(twin)
    turn.keep(device, name)
    if twin.type == DELETED or not same:
        twin.type = type_
        if twin.actual is not None and values.problem(type_, twin.actual):
            twin.actual, twin.actual_ms = None, 0
    if value != before:
        _drop_override(turn, device, name)
        twin.expected, twin.expected_ms = value, turn.now_ms if value is not None else 0
        twin.expected_cloud, twin.expected_edge = version, 0
    turn.write(device, name, twin)
    changes.document[name] = (last, twin_json(twin))


def _cloud_value(device: Device, name: str, twin: Twin) -> str | None:
    """What the cloud wanted last."""
    if device.overridden is not None and name in device.overridden:
        return device.overridden[name]
    return twin.expected


def _drop_override(turn: Turn, device: Device, name: str) -> None:
    old = device.overridden
    if old is None or name not in old:
        return
    _set_overridden(turn, device, {key: value for key, value in old.items() if key != name} or None)


def _set_overridden(turn: Turn, device: Device, new: dict[str, str] | None) -> None:
    old = device.overridden
    device.overridden = new
    turn.devices[device] = None

    def back() -> None:
        device.overridden = old

    turn.on_undo(back)
