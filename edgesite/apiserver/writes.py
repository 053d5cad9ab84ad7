"""create, update, patch, delete and deletecollection, of objects and of the subresources that hold the object itself.

Errors  ApiError.
State   None.
Source  Kubernetes API concepts (patch types, server-side apply, dry run, field validation); meta/v1 Status (successful deletes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.apiserver import metadata as meta
from edgesite.apiserver.call import Call, answer
from edgesite.apiserver.reads import view_of
from edgesite.apiserver.registry import MODIFIED
from edgesite.apiserver.scheme import parse_body
from edgesite.apiserver.strategies.base import Write
from edgesite.kube import errors, json, patch
from edgesite.kube.errors import ApiError
from edgesite.kube.negotiate import BodyFormat, Form, body_format, patch_type
from edgesite.kube.options import DeleteOptions, ListOptions, WriteOptions
from edgesite.kube.patch_strategic import strategic_merge

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.views import Views
    from edgesite.context import Clock, Threads
    from edgesite.net.http import Response
    from edgesite.store.rows import Row

__all__ = ["Writes"]

LONG_YAML_BYTES: Final = 64 * 1024  #: what takes some 10 ms to read
_APPLY_TRIES: Final = 3
TOGETHER: Final = 64  #: deletions of one deletecollection that share a commit
Object = dict[str, Any]
_OPTIONS: Final = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
_OPERATIONS: Final = {"create": "CREATE", "delete": "DELETE", "deletecollection": "DELETE"}


class Writes:
    """Carries out writes through the registry and renders what came of them."""

    def __init__(self, registry: Registry, views: Views, clock: Clock, threads: Threads) -> None:
        self._registry = registry
        self._views = views
        self._clock = clock
        self._threads = threads

    # what all writes share

    def begin(self, call: Call, options: WriteOptions) -> Write:
        """Return the write that a call asks for."""
        return Write(
            operation=_OPERATIONS.get(call.verb, "UPDATE"),
            kind=call.kind,
            namespace=call.route.namespace if call.kind.resource.namespaced else "",
            name=call.route.name,
            subresource=call.route.subresource,
            user=call.user,
            now_s=self._clock.time(),
            registry=self._registry,
            dry_run=options.dry_run,
            manager=options.manager or call.manager,
            field_validation=options.field_validation,
            warnings=call.warnings,
        )

    def options(self, call: Call) -> WriteOptions:
        """Raises ApiError."""
        return WriteOptions.of(call.request.query if call.request.raw_query else {}, _OPTIONS[call.verb])

    async def parsed(self, body: bytes, form: BodyFormat) -> Any:
        """Return the value of a body; what takes long to read is read in a thread. Raises ApiError."""
        if form is BodyFormat.YAML and len(body) > LONG_YAML_BYTES:
            return await self._threads.run(parse_body, body, form)
        return parse_body(body, form)

    async def body(self, call: Call) -> tuple[Any, bytes]:
        """Return the decoded body, and its text where JSON. Raises ApiError."""
        request = call.request
        form = body_format(request.headers.get("content-type"))
        if not request.body:
            raise errors.bad_request("the body of the request was empty")
        own = request.peer.in_process  # what our own codec wrote holds no member twice
        return await self.parsed(request.body, form), request.body if form is BodyFormat.JSON and not own else b""

    async def decoded(self, call: Call, options: WriteOptions) -> Object:
        """Return the object in the body as its kind holds it. Raises ApiError."""
        value, text = await self.body(call)
        obj = meta.shape(value, call.kind.resource)
        return self._registry.scheme.decode(call.kind, obj, options.field_validation, call.warnings, text)

    def render(self, call: Call, row: Row, status: int = 200) -> Response:
        """Answer with the object as it is now. Raises ApiError."""
        view = view_of(call.request)
        if view.form is Form.PARTIAL_LIST:
            raise errors.not_acceptable("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
        body = self._views.object(call.kind, row, view)
        return answer(call.request, body, status=status, view=view, warnings=call.warnings)

    # verbs

    async def create(self, call: Call) -> Response:
        """Raises ApiError."""
        options = self.options(call)
        obj = await self.decoded(call, options)
        view_of(call.request)
        write = self.begin(call, options)
        write.name = obj["metadata"].get("name") or ""
        if obj["metadata"].get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        row = await self._registry.create(write, obj)
        return self.render(call, row, 201)

    async def update(self, call: Call) -> Response:
        """Raises ApiError."""
        options = self.options(call)
        obj = await self.decoded(call, options)
        view_of(call.request)
        write = self.begin(call, options)
        required = obj["metadata"].get("resourceVersion") or ""
        if not obj["metadata"].get("name"):
            raise self._nameless(call)

        def change(old: Object) -> Object:
            if not required and not call.kind.strategy.unconditional_update:
                raise self._unconditional(call)
            return patch.copied(obj)

        try:
            row = await self._registry.change(write, change, required=required or None)
        except ApiError as exc:
            if exc.code != 404 or required or not self._creates(call, write):
                raise
            write.operation = "CREATE"
            return self.render(call, await self._registry.create(write, obj), 201)
        return self.render(call, row)

    def _creates(self, call: Call, write: Write) -> bool:
        """Whether an update of what is not there creates it."""
        kind = call.kind
        return (
            kind.strategy.create_on_update
            and not write.subresource
            and self._registry.store.latest(kind.key(write.namespace, write.name)) is None
        )

    def _nameless(self, call: Call) -> ApiError:
        row = call.kind.resource
        cause = {
            "reason": "FieldValueRequired",
            "message": "Required value: name is required",
            "field": "metadata.name",
        }
        return errors.invalid(row.kind, call.route.name, [cause], row.group)

    def _unconditional(self, call: Call) -> ApiError:
        row = call.kind.resource
        message = "Invalid value: 0x0: must be specified for an update"
        cause = {"reason": "FieldValueInvalid", "message": message, "field": "metadata.resourceVersion"}
        return errors.invalid(row.kind, call.route.name, [cause], row.group)

    async def patch(self, call: Call) -> Response:
        """Raises ApiError."""
        options = self.options(call)
        request, kind = call.request, call.kind
        how = patch_type(
            request.headers.get("content-type"), strategic=kind.definition is not None and kind.custom is None
        )
        if options.force and how != "apply":
            message = "Forbidden: may not be specified for non-apply patch"
            cause = {"reason": "FieldValueForbidden", "message": message, "field": "force"}
            raise errors.invalid("PatchOptions", "", [cause], "meta.k8s.io")
        if how == "apply":
            return await self._apply(call, options)
        given = parse_body(request.body, BodyFormat.JSON)
        write = self.begin(call, options)
        view_of(request)
        row = await self._registry.change(write, self.patcher(call, options, how, given))
        return self.render(call, row)

    def patcher(self, call: Call, options: WriteOptions, how: str, given: Any) -> Callable[[Object], Object]:
        """Return the function that patches an object and decodes the result. Raises ApiError when it is called."""
        kind = call.kind

        def change(old: Object) -> Object:
            if how == "json":
                patched = patch.json_patch(old, given)
            elif how == "merge":
                patched = patch.merge_patch(old, given)
            else:
                patched = strategic_merge(self._registry.scheme.schemas, kind.definition, old, given)
            if (
                kind.definition is None or kind.custom is not None
            ):  # nothing is rebuilt in decoding: parts would be shared with the old object
                patched = patch.copied(patched)
            call.warnings.clear()
            decoded = self._registry.scheme.decode(
                kind, meta.shape(patched, kind.resource), options.field_validation, call.warnings
            )
            required = decoded["metadata"].get("resourceVersion")
            if required and required != old["metadata"]["resourceVersion"]:
                raise self._conflicting(call)
            return decoded

        return change

    def _conflicting(self, call: Call) -> ApiError:
        return errors.conflict(call.kind.resource.plural, call.route.name, MODIFIED, call.kind.resource.group)

    async def _apply(self, call: Call, options: WriteOptions) -> Response:
        """Server-side apply. Raises ApiError."""
        kind, request = call.kind, call.request
        if not options.manager:
            message = "Required value: is required for apply patch"
            cause = {"reason": "FieldValueRequired", "message": message, "field": "fieldManager"}
            raise errors.invalid("PatchOptions", "", [cause], "meta.k8s.io")
        applied = meta.shape(await self.parsed(request.body, BodyFormat.YAML), kind.resource)
        if applied["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        applied = self._registry.scheme.decode(kind, applied, options.field_validation, call.warnings)
        applied["metadata"].setdefault("name", call.route.name)
        if kind.resource.namespaced:
            applied["metadata"].setdefault("namespace", call.route.namespace)
        view_of(request)
        for _ in range(_APPLY_TRIES - 1):
            try:
                return await self._apply_once(call, options, patch.copied(applied))
            except ApiError as exc:
                if exc.reason not in ("AlreadyExists", "NotFound"):
                    raise  # else it came or went meanwhile: what was applied counts for both
        return await self._apply_once(call, options, applied)

    async def _apply_once(self, call: Call, options: WriteOptions, applied: Object) -> Response:
        """Change the object if it is there, else create it. Raises ApiError."""
        kind = call.kind
        write = self.begin(call, options)
        write.applied = True

        def change(old: Object | None) -> Object:
            return self._registry.scheme.managers.apply(write, old, applied, force=options.force)

        exists = self._registry.store.latest(kind.key(write.namespace, write.name)) is not None
        if exists or write.subresource:
            required = applied["metadata"].get("resourceVersion")
            return self.render(call, await self._registry.change(write, change, required=required))
        write.operation = "CREATE"
        return self.render(call, await self._registry.create(write, change(None)), 201)

    async def delete(self, call: Call) -> Response:
        """Raises ApiError."""
        options = self.delete_options(call)
        write = self.begin(call, WriteOptions(dry_run=options.dry_run))
        row, gone = await self._registry.delete(write, options)
        if gone and not call.kind.strategy.returns_deleted:
            return answer(call.request, json.dumps(self._deleted(call.kind, row)), warnings=call.warnings)
        return self.render(call, row)

    def delete_options(self, call: Call) -> DeleteOptions:
        """Raises ApiError."""
        request = call.request
        value = None
        if request.body:
            value = parse_body(request.body, body_format(request.headers.get("content-type")))
        return DeleteOptions.of(request.query if request.raw_query else {}, value)

    def _deleted(self, kind: Kind, row: Row) -> Object:
        details: Object = {"name": kind.names_of(row.key)[1]}
        if kind.resource.group:
            details["group"] = kind.resource.group
        details["kind"] = kind.resource.plural
        details["uid"] = json.loads(row.value)["metadata"]["uid"]
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    async def delete_collection(self, call: Call) -> Response:
        """Delete what matches, some at a time; what is gone meanwhile does not matter. Raises ApiError."""
        options = self.delete_options(call)
        query = call.request.query if call.request.raw_query else {}
        listed = self._registry.list(call.kind, call.route.namespace, ListOptions.of(query, watch=False))
        failures: list[ApiError] = []
        for start in range(0, len(listed.rows), TOGETHER):
            async with anyio.create_task_group() as tasks:
                for row in listed.rows[start : start + TOGETHER]:
                    tasks.start_soon(self._delete_one, call, options, row, failures)
            if failures:
                raise failures[0]
        view = view_of(call.request)
        return answer(call.request, self._views.list(call.kind, listed, view), view=view, warnings=call.warnings)

    async def _delete_one(self, call: Call, options: DeleteOptions, row: Row, failures: list[ApiError]) -> None:
        write = self.begin(call, WriteOptions(dry_run=options.dry_run))
        write.namespace, write.name = call.kind.names_of(row.key)
        try:
            await self._registry.delete(write, options)
        except ApiError as exc:
            if exc.code != 404:
                failures.append(exc)
