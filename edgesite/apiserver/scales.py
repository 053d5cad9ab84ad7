"""The scale subresource: an autoscaling/v1 Scale is a view of a workload's replicas.

Errors  ApiError.
State   None.
Source  API reference: Scale (autoscaling/v1).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.call import Call, answer
from edgesite.apiserver.reads import view_of
from edgesite.apiserver.scheme import parse_body
from edgesite.kube import errors, json, patch, selectors
from edgesite.kube.negotiate import BodyFormat, patch_type

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.writes import Writes
    from edgesite.kube.options import WriteOptions
    from edgesite.net.http import Response
    from edgesite.store.rows import Row

__all__ = ["Scales"]

Object = dict[str, Any]
_MAX_INT32: Final = 2**31 - 1


def scale_of(kind: Kind, obj: Object) -> Object:
    """Return the Scale of a workload."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    paths = kind.custom.scale if kind.custom is not None else None
    if paths is not None:
        replicas, seen, selector = (_at(obj, path) for path in paths)
    else:
        replicas = (obj.get("spec") or {}).get("replicas", 0)
        seen = (obj.get("status") or {}).get("replicas", 0)
        selector = _selector_text(kind, (obj.get("spec") or {}).get("selector"))
    status: Object = {"replicas": seen or 0}
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _selector_text(kind: Kind, selector: Any) -> str:
    if kind.resource.plural == "replicationcontrollers":
        return str(selectors.from_labels(selector))
    try:
        return str(selectors.from_object(selector))
    except selectors.InvalidSelector:
        return ""


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for part in path.strip(".").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


class Scales:
    """Reads and writes scales."""

    def __init__(self, registry: Registry, writes: Writes) -> None:
        self._registry = registry
        self._writes = writes

    async def get(self, call: Call) -> Response:
        """Raises ApiError."""
        return self._render(call, self._registry.row(call.kind, call.route.namespace, call.route.name))

    def _render(self, call: Call, row: Row) -> Response:
        scale = scale_of(call.kind, json.loads(row.value))
        return answer(call.request, json.dumps(scale), view=view_of(call.request), warnings=call.warnings)

    async def update(self, call: Call) -> Response:
        """Raises ApiError."""
        options = self._writes.options(call)
        scale, _ = await self._writes.body(call)
        wanted = self._replicas(call, scale)
        required = (scale.get("metadata") or {}).get("resourceVersion")
        return await self._set(call, options, lambda old: wanted, required)

    async def patch(self, call: Call) -> Response:
        """Raises ApiError."""
        options = self._writes.options(call)
        how = patch_type(call.request.headers.get("content-type"))
        given = parse_body(call.request.body, BodyFormat.YAML if how == "apply" else BodyFormat.JSON)

        def wanted(old: Object) -> int:
            scale = scale_of(call.kind, old)
            # A Scale holds no lists: strategic merge, apply and merge come to the same.
            patched = patch.json_patch(scale, given) if how == "json" else patch.merge_patch(scale, given)
            return self._replicas(call, patched)

        required = (given.get("metadata") or {}).get("resourceVersion") if isinstance(given, dict) else None
        return await self._set(call, options, wanted, required)

    def _replicas(self, call: Call, scale: Any) -> int:
        """Check a Scale and return its replicas. Raises ApiError."""
        if (
            not isinstance(scale, dict)
            or not isinstance(scale.get("spec"), dict | None)
            or not isinstance(scale.get("metadata"), dict | None)
        ):
            raise errors.bad_request("the body of the request must be a Scale")
        if (name := (scale.get("metadata") or {}).get("name")) and name != call.route.name:
            raise errors.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({call.route.name})"
            )
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool) or abs(replicas) > _MAX_INT32:
            raise errors.bad_request(
                'Scale in version "v1" cannot be handled as a Scale: json: cannot unmarshal into Go struct field '
                "ScaleSpec.spec.replicas of type int32"
            )
        if replicas < 0:
            message = f"Invalid value: {replicas}: must be greater than or equal to 0"
            cause = {"reason": "FieldValueInvalid", "message": message, "field": "spec.replicas"}
            raise errors.invalid("Scale", call.route.name, [cause], "autoscaling")
        return replicas

    async def _set(self, call: Call, options: WriteOptions, wanted: Any, required: str | None) -> Response:
        kind = call.kind
        path = kind.custom.scale[0] if kind.custom is not None else ".spec.replicas"

        def change(old: Object) -> Object:
            new = copy.deepcopy(old)
            *parents, last = path.strip(".").split(".")
            at = new
            for part in parents:
                at = at.setdefault(part, {})
            at[last] = wanted(old)
            return new

        write = self._writes.begin(call, options)
        return self._render(call, await self._registry.change(write, change, required=required))
