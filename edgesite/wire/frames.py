"""Frames between two ends of ours: many messages in one binary WebSocket message, msgpack, deflated where that pays.

    byte 0      0 plain, 1 deflated (raw, with `DICTIONARY`)
    the rest    msgpack [floor, upto, [more…], time, message, message…]
    message     [id, number, source, group, operation, resource, content, parent, version, type], cut after the last that is set

``floor``, ``upto`` and ``more`` are about numbers (`edgesite.wire.numbers`); ``time`` is that of the messages, milliseconds since
the epoch. Ids that are UUIDs travel as their 16 bytes. KubeEdge's ends never see such frames.

Units   Bytes.
Errors  InvalidMessage for what is no frame, or grows beyond `MESSAGE_BYTES`.
State   None.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgspec

from edgesite.wire.delta import DELTA
from edgesite.wire.message import InvalidMessage, Message

__all__ = ["DICTIONARY", "MESSAGE_BYTES", "Batch", "Frame", "Lane", "Row", "decode", "encode", "encode_row"]

MESSAGE_BYTES: Final = 64 * 1024 * 1024
_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"
_WORTH_DEFLATING: Final = 256
_WINDOW_BITS: Final = -13
_MEMORY_LEVEL: Final = 6
#: What objects of Kubernetes are made of. Both ends must have the very same: it belongs to the feature's name.
DICTIONARY: Final = (
    b"lastProbeTimelastTransitionTimelastTimestampfirstTimestampinvolvedObjectreportingComponentannotationslabels"
    b"creationTimestampdeletionTimestampdeletionGracePeriodSecondsgenerationownerReferencesblockOwnerDeletioncontroller"
    b"apps/v1ReplicaSetDaemonSetStatefulSetJobbatch/v1pod-template-hashcontroller-revision-hashapp.kubernetes.io/name"
    b"nodeAffinityrequiredDuringSchedulingIgnoredDuringExecutionnodeSelectorTermsmatchFieldsmatchExpressions"
    b"tolerationsnode.kubernetes.io/not-readynode.kubernetes.io/unreachableoperatorExistseffectNoExecutetolerationSeconds"
    b"terminationGracePeriodSecondsterminationMessagePath/dev/termination-logterminationMessagePolicyFile"
    b"imagePullPolicyIfNotPresentAlwaysresourceslimitsrequestscpumemoryephemeral-storagelivenessProbereadinessProbe"
    b"httpGetpathportschemeinitialDelaySecondsperiodSecondstimeoutSecondssuccessThresholdfailureThreshold"
    b"containerPortprotocolTCPUDPenvvalueFromfieldRefsecretKeyRefconfigMapKeyRefkeynamevalueenvFrom"
    b"restartPolicyAlwaysdnsPolicyClusterFirstschedulerNamedefault-schedulersecurityContextpriorityenableServiceLinks"
    b"preemptionPolicyPreemptLowerPriorityserviceAccountserviceAccountNamedefaultvolumesprojectedsourcesdefaultMode"
    b"serviceAccountTokenexpirationSecondspathtokenconfigMapkube-root-ca.crtitemsca.crtdownwardAPInamespace"
    b"volumeMountsmountPath/var/run/secrets/kubernetes.io/serviceaccountreadOnlykube-api-access-hostNetworkemptyDir"
    b"containerStatusescontainerIDimageIDlastStatereadyrestartCountstartedstaterunningstartedAtwaitingterminated"
    b"exitCodereasonCompletedErrorfinishedAtContainerCreatingCrashLoopBackOffpodIPpodIPshostIPhostIPsqosClassBestEffort"
    b"phasePendingRunningSucceededFailedstartTimeconditionstypeInitializedReadyContainersReadyPodScheduledstatusTrueFalse"
    b"kube-node-lease/lease/coordination.k8s.io/v1LeaseholderIdentityleaseDurationSecondsrenewTimespec"
    b"edgecontrollerresourceupdateinsertdeletequeryresponsepatchedgedmetadefault/podpatch/default/nodepatch/"
    b"default/configmap/default/secret/default/node/default/pod/apiVersionv1kindPodConfigMapSecretNodemetadata"
    b"nameuidresourceVersionnamespacespeccontainersimagenodeNamestatusOKObjectErr"
)

_packer = msgspec.msgpack.Encoder()
_pack = _packer.encode
_unpack = msgspec.msgpack.Decoder().decode

Row = bytes
_CONTENT: Final = 6  #: where the content stands in a row


class Lane(IntEnum):
    """Where a transport has several ordered streams: what must not wait behind a bulk of objects, and everything else. Keepalives,
    greetings and acknowledgements are urgent, and the ends of objects: an object that has ended is never made again by news
    that come late. All else keeps its order."""

    URGENT = 0
    BULK = 1


class Frame(NamedTuple):
    """One message of the transport."""

    data: bytes
    text: bool


class Batch(msgspec.Struct, frozen=True):
    """What a frame holds. ``numbers`` are the messages' own, 0 for one without."""

    floor: int
    upto: int
    more: tuple[int, ...]
    messages: tuple[Message, ...]
    numbers: tuple[int, ...]


def encode_row(message: Message, number: int, delta: dict[str, Any] | None = None) -> Row:
    """Return a message for `encode`; with ``delta`` in place of its content if that is given."""
    fields: list[Any] = [
        _pack_id(message.msg_id),
        number,
        message.source,
        message.group,
        str(message.operation),
        message.resource,
        message.content if delta is None else delta,
        _pack_id(message.parent_msg_id) if message.parent_msg_id else "",
        message.resource_version,
        message.type if delta is None else DELTA,
    ]
    while fields[-1] in (None, "", 0):
        fields.pop()
    try:
        return _pack(fields)
    except OverflowError:  # msgpack has no integers beyond 64 bits: the JSON text of an object means the same
        fields[_CONTENT] = message.data().decode()
        if delta is not None:
            fields[-1] = message.type
        return _pack(fields)


def encode(floor: int, upto: int, more: Sequence[int], time_ms: int, rows: Sequence[Row], *, deflate: bool) -> bytes:
    """Return a frame."""
    count = 4 + len(rows)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    body = b"".join((head, _pack(floor), _pack(upto), _pack(list(more)), _pack(time_ms), *rows))
    if deflate and len(body) >= _WORTH_DEFLATING:
        packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zdict=DICTIONARY)
        smaller = packer.compress(body) + packer.flush()
        if len(smaller) < len(body):
            return _DEFLATED + smaller
    return _PLAIN + body


def decode(data: bytes) -> Batch:
    """Read a frame. Raises InvalidMessage."""
    try:
        top = _unpack(_body(data))
    except (msgspec.MsgspecError, zlib.error, ValueError, RecursionError) as exc:
        raise InvalidMessage(f"no frame: {exc}") from exc
    match top:
        case [int(floor), int(upto), list(more), int(time_ms), *rows] if all(isinstance(one, int) for one in more):
            read = [_read(row, time_ms) for row in rows]
            return Batch(floor, upto, tuple(more), tuple(one for one, _ in read), tuple(number for _, number in read))
    raise InvalidMessage("no frame: its head is malformed")


def _body(data: bytes) -> bytes:
    kind, rest = data[:1], data[1:]
    if kind == _PLAIN:
        return rest
    if kind != _DEFLATED:
        raise InvalidMessage("no frame: of an unknown kind")
    unpacker = zlib.decompressobj(_WINDOW_BITS, zdict=DICTIONARY)
    body = unpacker.decompress(rest, MESSAGE_BYTES)
    if not unpacker.eof:
        raise InvalidMessage("no frame: it is cut short or too large")
    return body


_DEFAULTS: Final = ("", 0, "", "", "", "", None, "", "", "")


def _read(row: Any, time_ms: int) -> tuple[Message, int]:
    if not isinstance(row, list) or not 0 < len(row) <= len(_DEFAULTS):
        raise InvalidMessage("no frame: a message in it is malformed")
    row = [*row, *_DEFAULTS[len(row) :]]
    msg_id, number, source, group, operation, path, content, parent, version, type_ = row
    texts = (source, group, operation, path, version, type_)
    if not isinstance(number, int) or not all(isinstance(one, str) for one in texts):
        raise InvalidMessage("no frame: a message in it is malformed")
    message = Message(
        _unpack_id(msg_id),
        time_ms,
        source,
        group,
        operation,
        path,
        content,
        _unpack_id(parent),
        version,
        type=type_,
    )
    return message, number


def _pack_id(text: str) -> str | bytes:
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        try:
            packed = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            return text
        if len(packed) == 16 and _spelled(packed) == text:
            return packed
    return text


def _unpack_id(packed: Any) -> str:
    if isinstance(packed, str):
        return packed
    if isinstance(packed, bytes) and len(packed) == 16:
        return _spelled(packed)
    raise InvalidMessage("no frame: an id in it is malformed")


def _spelled(packed: bytes) -> str:
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
