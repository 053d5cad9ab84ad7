"""The generic registry: one path by which every kind is read and written.

Units   Times are Unix seconds.
Errors  ApiError for everything that a client can cause; errors of the store that are nobody's fault pass (`edgesite.store.errors`).
State   In the store alone, but for the allocators that strategies keep.
Source  Kubernetes API concepts (resourceVersion semantics, dry run, finalizers, server-side apply).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver import metadata as meta
from edgesite.apiserver import selection
from edgesite.apiserver.admission import Admissions
from edgesite.apiserver.kinds import Kind, Kinds
from edgesite.apiserver.scheme import Scheme
from edgesite.apiserver.strategies.base import Write
from edgesite.kube import errors, json, validation
from edgesite.kube.encoding import encoder
from edgesite.kube.errors import ApiError
from edgesite.kube.options import DeleteOptions, ListOptions, continue_token, read_continue
from edgesite.kube.resources import NAMESPACES
from edgesite.store.errors import Compacted, Conflict, FutureRevision, NotFound
from edgesite.store.rows import Row

if TYPE_CHECKING:
    import random

    from edgesite.context import Clock
    from edgesite.store.store import Store

__all__ = ["Listed", "Registry", "too_large_revision"]

Object = dict[str, Any]
#: Makes the new state from the stored one. Raises ApiError.
Change = Callable[[Object], Object]
MODIFIED: Final = "the object has been modified; please apply your changes to the latest version and try again"
_RETRIES: Final = 8  #: of a write that lost against another one without having asked for a certain revision
_NAMES: Final = 8  #: generated names that are tried
_LOOKED_AT: Final = 500  #: rows that are looked at together for a page of those that match


@dataclass(frozen=True, slots=True)
class Listed:
    rows: list[Row]
    revision: int
    token: str = ""
    remaining: int | None = None


def too_large_revision(asked: int, newest: int) -> ApiError:
    """A revision that does not exist yet: the client should come again."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {asked}, current: {newest}"
    return ApiError(504, "Timeout", message, {"causes": [cause]}, retry_after_s=1)


class _TokenExpired(ApiError):
    """A page of a revision that is no longer held; ``onward`` goes on at the present one."""

    def __init__(self, message: str, onward: str) -> None:
        super().__init__(410, "Expired", message)
        self._onward = onward

    def status(self) -> Object:
        return {**super().status(), "metadata": {"continue": self._onward}}


class Registry:
    """Reads and writes objects of all kinds."""

    def __init__(
        self, store: Store, kinds: Kinds, scheme: Scheme, admissions: Admissions, clock: Clock, random: random.Random
    ) -> None:
        self.store = store
        self.kinds = kinds
        self.scheme = scheme
        self.admissions = admissions
        self.clock = clock
        self.random = random
        self._namespaces = kinds.of(NAMESPACES).prefix

    # reading

    def row(self, kind: Kind, namespace: str, name: str, revision: int | None = None) -> Row:
        """Return an object's row, no older than ``revision``. Raises ApiError."""
        if revision is not None and revision > self.store.revision:
            raise too_large_revision(revision, self.store.revision)
        found = self.store.get(kind.key(namespace, name))
        if found is None:
            raise errors.not_found(kind.resource.plural, name, kind.resource.group)
        return found

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object in its stored form, newest state, for decisions made while writing; None if there is none."""
        row = self.store.latest(kind.key(namespace, name))
        return None if row is None else json.loads(row.value)

    def list(self, kind: Kind, namespace: str, options: ListOptions) -> Listed:
        """Return one page of rows. Raises ApiError."""
        matches = selection.matcher(kind, options.labels, options.fields)
        name = selection.exact_name(options.fields)
        if name is not None and (namespace or not kind.resource.namespaced) and not options.token and not options.limit:
            return self._list_one(kind, namespace, name, options, matches)
        prefix, after, revision = kind.collection(namespace), None, self._list_revision(options)
        if options.token:
            revision, start = read_continue(options.token)
            after = prefix + start
        try:
            return self._pages(prefix, after, revision, options.limit, matches)
        except Compacted:
            raise self._too_old(options) from None
        except FutureRevision as exc:
            raise too_large_revision(exc.asked, exc.newest) from None

    def _list_one(
        self, kind: Kind, namespace: str, name: str, options: ListOptions, matches: selection.Matcher | None
    ) -> Listed:
        if self._list_revision(options) not in (None, self.store.revision):
            raise self._too_old(options)
        row = self.store.get(kind.key(namespace, name))
        fits = row is not None and (matches is None or matches(row))
        return Listed([row] if row is not None and fits else [], self.store.revision)

    def _list_revision(self, options: ListOptions) -> int | None:
        """The exact revision to list at; None: the newest. Raises ApiError."""
        asked = options.revision
        if not asked:
            return None
        if asked > self.store.revision:
            raise too_large_revision(asked, self.store.revision)
        exact = options.match == "Exact" or (not options.match and options.limit > 0)
        return asked if exact else None

    def _pages(
        self, prefix: str, after: str | None, revision: int | None, limit: int, matches: selection.Matcher | None
    ) -> Listed:
        """List until ``limit`` rows match. With a selector the number of remaining rows is not known."""
        if matches is None or not limit:
            page = self.store.list(prefix, after=after, limit=limit or None, revision=revision)
            rows = page.rows if matches is None else [row for row in page.rows if matches(row)]
            if page.next_key is None:
                return Listed(rows, page.revision)
            return Listed(
                rows, page.revision, continue_token(page.revision, page.next_key[len(prefix) :]), page.remaining
            )
        rows = []
        while True:  # a small page of few matches must not cost one pass over everything for each row
            page = self.store.list(prefix, after=after, limit=max(limit, _LOOKED_AT), revision=revision)
            revision = page.revision
            for row in page.rows:
                if len(rows) == limit:
                    return Listed(rows, revision, continue_token(revision, rows[-1].key[len(prefix) :]))
                if matches(row):
                    rows.append(row)
            if page.next_key is None:
                return Listed(rows, revision)
            after = page.next_key

    def _too_old(self, options: ListOptions) -> ApiError:
        if options.token:
            message = (
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
                "the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
            )
            return _TokenExpired(message, continue_token(self.store.revision, read_continue(options.token)[1]))
        return errors.expired(f"The resourceVersion for the provided list is too old: {options.revision}")

    # creating

    async def create(self, write: Write, obj: Object) -> Row:
        """Store a decoded object. Raises ApiError."""
        generated = not obj["metadata"].get("name")
        for _ in range(_NAMES):
            try:
                return await self._create(write, json.loads(json.dumps(obj)) if generated else obj)
            except Conflict as exc:
                if not generated:
                    raise self._already_exists(write, exc.actual) from None
                write.name = ""
        raise self._already_exists(write, None)

    async def _create(self, write: Write, obj: Object) -> Row:
        kind = write.kind
        metadata = self._place(write, obj)
        meta.identify(metadata, now_s=write.now_s, rng=self.random, generation=validation.has_generation(kind.resource))
        if not metadata.get("name"):
            cause = {
                "reason": "FieldValueRequired",
                "message": "Required value: name or generateName is required",
                "field": "metadata.name",
            }
            raise errors.invalid(kind.resource.kind, "", [cause], kind.resource.group)
        write.name = metadata["name"]
        self._check_namespace(write)
        self.scheme.default(kind, obj)
        self.scheme.managers.note(write, None, obj)
        await self.admissions.mutate(write, obj, None)
        kind.strategy.prepare_create(write, obj)
        try:
            self.scheme.validate(kind, obj, None)
            await self.admissions.validate(write, obj, None)
            self._check_namespace(write)  # again: it may have been deleted, and emptied, while plugins thought
            stored = kind.to_stored(obj) if kind.to_stored else obj
            row = await self._put(write, stored, 0)
        except Exception:  # not a cancellation: such a write may yet be carried out, and keeps what it took
            self._settle(write, obj, None)
            raise
        return row

    def _settle(self, write: Write, before: Object | None, after: Object | None) -> None:
        if not write.dry_run:  # a dry run took nothing
            write.kind.strategy.settle(before, after)

    def _place(self, write: Write, obj: Object) -> Object:
        """Put the object where the path says. Raises ApiError."""
        metadata: Object = obj["metadata"]
        if not write.kind.resource.namespaced:
            metadata.pop("namespace", None)
        elif metadata.get("namespace", write.namespace) != write.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        else:
            metadata["namespace"] = write.namespace
        return metadata

    def _check_namespace(self, write: Write) -> None:
        """New objects need a namespace that is there and stays. Raises ApiError."""
        if not write.kind.resource.namespaced:
            return
        namespace = self.store.latest(self._namespaces + write.namespace)
        row = write.kind.resource
        if namespace is None:
            raise errors.not_found("namespaces", write.namespace)
        if namespace.attrs[1]["status.phase"] == "Terminating":
            why = f"unable to create new content in namespace {write.namespace} because it is being terminated"
            error = errors.forbidden(row.plural, write.name, why, row.group)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {write.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details["causes"] = [cause]
            raise error

    def _already_exists(self, write: Write, actual: Row | None) -> ApiError:
        row = write.kind.resource
        error = errors.already_exists(row.plural, write.name, row.group)
        if actual is not None and json.loads(actual.value)["metadata"].get("deletionTimestamp"):
            error.message = f"object is being deleted: {error.message}"
        return error

    async def _put(self, write: Write, stored: Object, expect: int) -> Row:
        kind = write.kind
        key = kind.key(write.namespace, write.name)
        encode, attrs = encoder(stored), selection.index(kind.stored, stored)
        if write.dry_run:
            latest = self.store.latest(key)
            if expect != (latest.revision if latest else 0):
                raise Conflict(key, expect, latest)
            return Row(key, encode(expect), expect, expect, attrs)
        return await self.store.put(key, encode, expect=expect, attrs=attrs, volatile=kind.strategy.volatile)

    # changing

    async def change(self, write: Write, change: Change, *, required: str | None = None) -> Row:
        """Bring an object from its newest state to what ``change`` makes of it. ``required`` is a revision it must be at.

        Raises ApiError (NotFound, Conflict, Invalid, …).
        """
        for _ in range(_RETRIES):
            row = self.store.latest(write.kind.key(write.namespace, write.name))
            if row is None:
                raise errors.not_found(write.kind.resource.plural, write.name, write.kind.resource.group)
            try:
                return await self._change(write, row, change, required)
            except Conflict:
                if required:
                    break
            except NotFound:
                continue
        raise self.conflict(write, MODIFIED)

    def conflict(self, write: Write, why: str) -> ApiError:
        return errors.conflict(write.kind.resource.plural, write.name, why, write.kind.resource.group)

    async def _change(self, write: Write, row: Row, change: Change, required: str | None) -> Row:
        kind = write.kind
        stored: Object = json.loads(row.value)
        old: Object = kind.from_stored(stored) if kind.from_stored else stored
        new = change(old)
        self._check_identity(write, row, old["metadata"], new["metadata"], required)
        meta.carry_over(old["metadata"], new["metadata"])
        self.scheme.default(kind, new)
        self.scheme.managers.note(write, old, new)
        await self.admissions.mutate(write, new, old)
        self._prepare(write, old, new)
        try:
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if new == old and self.store.get(row.key) is row:
                return row
            self.scheme.validate(kind, new, old, write.subresource)
            await self.admissions.validate(write, new, old)
            after = kind.to_stored(new) if kind.to_stored else new
            done = await self._put_or_remove(write, row, after)
        except Exception:  # not a cancellation: such a write may yet be carried out, and keeps what it took
            self._settle(write, new, old)
            raise
        self._settle(write, old, new)
        return done

    def _check_identity(self, write: Write, row: Row, old: Object, new: Object, required: str | None) -> None:
        """Raises ApiError."""
        if required and required != str(row.revision):
            raise self.conflict(write, MODIFIED)
        uid = new.get("uid")
        if uid and uid != old["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['uid']}"
            raise self.conflict(write, why)
        if new.get("name", write.name) != write.name:
            raise errors.bad_request(
                f"the name of the object ({new.get('name')}) does not match the name on the URL ({write.name})"
            )
        if write.kind.resource.namespaced and new.get("namespace", write.namespace) != write.namespace:
            raise errors.bad_request(
                f"the namespace of the object ({new.get('namespace')}) does not match the namespace on the URL ({write.namespace})"
            )
        new["name"] = write.name
        if write.kind.resource.namespaced:
            new["namespace"] = write.namespace
        else:
            new.pop("namespace", None)

    def _prepare(self, write: Write, old: Object, new: Object) -> None:
        strategy = write.kind.strategy
        if not write.subresource:
            strategy.prepare_update(write, old, new)
        elif write.subresource == "status":
            strategy.prepare_status(write, old, new)
        elif write.subresource == "scale":
            strategy.prepare_update(write, old, new)
        elif write.subresource != "binding":
            strategy.prepare_other(write, old, new)

    async def _put_or_remove(self, write: Write, row: Row, after: Object) -> Row:
        """Store the new state; remove the object if this took away the last that held its deletion."""
        metadata = after["metadata"]
        gone = (
            metadata.get("deletionTimestamp")
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
            and not write.kind.strategy.keeps(after)
        )
        if not gone:
            return await self._put(write, after, row.revision)
        if write.dry_run:
            return Row(row.key, encoder(after)(row.revision), row.revision, row.created, row.attrs)
        return await self._remove(write, row, after)

    async def _remove(self, write: Write, row: Row, last: Object) -> Row:
        done = await self.store.delete(row.key, encoder(last), expect=row.revision)
        write.kind.strategy.settle(last, None)
        return done

    # deleting

    async def delete(self, write: Write, options: DeleteOptions) -> tuple[Row, bool]:
        """Delete or mark for deletion; return the last state and whether it is gone. Raises ApiError."""
        for _ in range(_RETRIES):
            row = self.store.latest(write.kind.key(write.namespace, write.name))
            if row is None:
                raise errors.not_found(write.kind.resource.plural, write.name, write.kind.resource.group)
            try:
                return await self._delete(write, row, options)
            except (Conflict, NotFound):
                if options.revision:
                    break
        raise self.conflict(write, MODIFIED)

    async def _delete(self, write: Write, row: Row, options: DeleteOptions) -> tuple[Row, bool]:
        kind = write.kind
        obj: Object = json.loads(row.value)
        metadata: Object = obj["metadata"]
        self._check_preconditions(write, row, metadata, options)
        kind.strategy.validate_delete(write, obj)
        await self.admissions.validate(write, None, obj)
        grace = kind.strategy.grace_s(write, obj, options.grace_s)
        policy = meta.owner_policy(
            options.policy(), list(metadata.get("finalizers") or ()), kind.strategy.default_propagation
        )
        marked = "deletionTimestamp" in metadata
        if marked and grace is not None and metadata.get("deletionGracePeriodSeconds"):
            if grace >= metadata["deletionGracePeriodSeconds"]:
                return row, False
        elif marked and policy == (metadata.get("finalizers") or []) and (policy or kind.strategy.keeps(obj)):
            return row, False
        metadata.pop("finalizers", None)
        if policy:
            metadata["finalizers"] = policy
        stays = bool(policy) or kind.strategy.keeps(obj) or bool(grace)
        if not stays:
            return await self._delete_now(write, row, obj, marked), True
        if not marked or (grace or 0) < (metadata.get("deletionGracePeriodSeconds") or 0):
            meta.mark_deleted(metadata, now_s=write.now_s, grace_s=grace or 0)
        kind.strategy.terminate(write, obj)
        return await self._put(write, obj, row.revision), False

    async def _delete_now(self, write: Write, row: Row, obj: Object, marked: bool) -> Row:
        if write.dry_run:
            return row
        if write.kind.strategy.returns_deleted and not marked and write.kind.resource.plural == "pods":
            meta.mark_deleted(obj["metadata"], now_s=write.now_s, grace_s=0)
        return await self._remove(write, row, obj)

    def _check_preconditions(self, write: Write, row: Row, metadata: Object, options: DeleteOptions) -> None:
        """Raises ApiError (Conflict)."""
        if options.uid is not None and options.uid != metadata["uid"]:
            why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {metadata['uid']}"
            raise self.conflict(write, why)
        if options.revision is not None and options.revision != str(row.revision):
            why = (
                f"Precondition failed: ResourceVersion in precondition: {options.revision}, "
                f"ResourceVersion in object meta: {row.revision}"
            )
            raise self.conflict(write, why)
