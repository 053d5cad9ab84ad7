"""A cached collection of the API with indexes and handlers; shared by all who watch the same.

Units   –
Errors  A handler that raises is logged, the others are still called.
State   The cache, in memory, one dict per object, trimmed by a transform. **Objects in it are shared: never change one**;
        copy (``copy.deepcopy``) what shall be written back.
Source  client-go, tools/cache (behaviour).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from edgesite.client.reflector import Reflector, Selection
from edgesite.client.transforms import transform_of, without_managed_fields

if TYPE_CHECKING:
    import random

    from edgesite.client.client import Client
    from edgesite.context import Clock
    from edgesite.kube.resources import Resource

__all__ = ["Informer", "ObjectKey", "SharedInformers", "Subscription", "key_of", "without_managed_fields"]

logger = logging.getLogger(__name__)
Object = dict[str, Any]
Objects = list[Object]  # spelled out: `list` is a method below
Indexer = Callable[[Object], Iterable[str]]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class ObjectKey(NamedTuple):
    """Namespace and name; the kind is the queue's."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(obj: Mapping[str, Any]) -> ObjectKey:
    meta = obj["metadata"]
    return ObjectKey(meta.get("namespace") or "", meta["name"])


class Subscription:
    """A set of handlers on an informer; closed by `close` or by leaving its ``with`` block. Idempotent."""

    __slots__ = ("_owner", "added", "deleted", "updated")

    def __init__(
        self,
        owner: list[Subscription],
        added: Callable[[Object], None] | None,
        updated: Callable[[Object, Object], None] | None,
        deleted: Callable[[Object], None] | None,
    ) -> None:
        self._owner = owner
        self.added, self.updated, self.deleted = added, updated, deleted
        owner.append(self)

    def close(self) -> None:
        if self in self._owner:
            self._owner.remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Informer:
    """A collection as of a moment ago. Handlers are called on the loop, in the order of changes; they must be brief.

    ``transform`` may change and must return the object before it is cached: the place to drop what nobody reads.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        clock: Clock,
        random: random.Random,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        transform: Callable[[Object], Object] = without_managed_fields,
        on_failure: Callable[[], None] | None = None,
        log: Log | None = None,
    ) -> None:
        self.resource = resource
        self._transform = transform
        self._log = log or logger
        self._objects: dict[ObjectKey, Object] = {}
        self._indexers: dict[str, Indexer] = {}
        self._indexes: dict[str, dict[str, dict[ObjectKey, None]]] = {}
        self._subscriptions: list[Subscription] = []
        self._synced = anyio.Event()
        selection = Selection(namespace, label_selector, field_selector, metadata_only)
        self._reflector = Reflector(client, resource, self, clock, random, selection, self._log)
        self._reflector.on_failure = on_failure

    @property
    def has_synced(self) -> bool:
        """Whether the first list is in the cache."""
        return self._synced.is_set()

    @property
    def resource_version(self) -> str:
        """Of the newest state seen."""
        return self._reflector.resource_version

    @property
    def fresh_since(self) -> float | None:
        """Monotonic time since which changes have been coming in; None while the server cannot be watched."""
        return self._reflector.fresh_since

    async def wait_synced(self) -> None:
        await self._synced.wait()

    async def run(self) -> None:
        """Keep the cache equal to the collection until cancelled."""
        await self._reflector.run()

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, name: str, namespace: str = "") -> Object | None:
        """Return the cached object, which is shared: do not change it."""
        return self._objects.get(ObjectKey(namespace, name))

    def by_key(self, key: ObjectKey) -> Object | None:
        """Return the cached object, which is shared: do not change it."""
        return self._objects.get(key)

    def keys(self) -> list[ObjectKey]:
        return list(self._objects)

    def list(self, namespace: str = "", matches: Callable[[Mapping[str, str]], bool] | None = None) -> Objects:
        """Return the objects, of one namespace if given, whose labels match if ``matches`` is given (`LabelSelector.matches`)."""
        return [
            obj
            for key, obj in self._objects.items()
            if (not namespace or key.namespace == namespace)
            and (matches is None or matches(obj["metadata"].get("labels") or {}))
        ]

    def add_index(self, name: str, indexer: Indexer) -> None:
        """Index the cache by what ``indexer`` returns for an object. A name that is taken keeps its first indexer."""
        if name in self._indexers:
            return
        self._indexers[name] = indexer
        self._indexes[name] = {}
        for key, obj in self._objects.items():
            self._index(name, key, obj)

    def by_index(self, name: str, value: str) -> Objects:
        """Return the objects that the index ``name`` has under ``value``. Raises KeyError for an unknown index."""
        return [self._objects[key] for key in self._indexes[name].get(value, ())]

    def index_values(self, name: str) -> Iterator[str]:
        return iter(self._indexes[name])

    def add_handler(
        self,
        added: Callable[[Object], None] | None = None,
        updated: Callable[[Object, Object], None] | None = None,
        deleted: Callable[[Object], None] | None = None,
    ) -> Subscription:
        """Call these for each change from now on, and ``added`` at once for what is cached already.

        ``updated`` gets the old and the new form. ``deleted`` gets the last form, which may be stale after a relist.
        """
        one = Subscription(self._subscriptions, added, updated, deleted)
        if added is not None:
            for obj in list(self._objects.values()):
                self._guard(added, obj)
        return one

    def on_change(self, changed: Callable[[Object], None]) -> Subscription:
        """Call ``changed`` with the newest form for each change of any sort."""
        return self.add_handler(changed, lambda old, new: changed(new), changed)

    def replace(self, objects: Objects) -> None:
        """Take a whole list: what differs is told to the handlers as changes."""
        fresh = {key_of(obj): obj for obj in objects}
        for key in [key for key in self._objects if key not in fresh]:
            self._remove(key, self._objects[key])
        for key, obj in fresh.items():
            old = self._objects.get(key)
            if old is None or _version(old) != _version(obj):
                self._put(key, obj)
        self._synced.set()

    def apply(self, kind: str, obj: Object) -> None:
        """Take one change of the watch."""
        key = key_of(obj)
        if kind == "DELETED":
            if key in self._objects:
                self._remove(key, obj)
        else:
            self._put(key, obj)

    def _put(self, key: ObjectKey, obj: Object) -> None:
        obj = self._transform(obj)
        old = self._objects.get(key)
        if old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid"):
            self._remove(key, old)  # deleted and made anew between two looks: two events, not an update
            old = None
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = obj
        for name in self._indexers:
            self._index(name, key, obj)
        for one in list(self._subscriptions):
            if old is None:
                if one.added is not None:
                    self._guard(one.added, obj)
            elif one.updated is not None:
                self._guard(one.updated, old, obj)

    def _remove(self, key: ObjectKey, last: Object) -> None:
        self._unindex(key, self._objects.pop(key))
        last = self._transform(last)
        for one in list(self._subscriptions):
            if one.deleted is not None:
                self._guard(one.deleted, last)

    def _index(self, name: str, key: ObjectKey, obj: Object) -> None:
        for value in self._indexers[name](obj):
            self._indexes[name].setdefault(value, {})[key] = None

    def _unindex(self, key: ObjectKey, obj: Object) -> None:
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            for value in indexer(obj):
                if (keys := index.get(value)) is not None:
                    keys.pop(key, None)
                    if not keys:
                        del index[value]

    def _guard(self, handler: Callable[..., None], *args: Object) -> None:
        try:
            handler(*args)
        except Exception:
            self._log.exception("a handler of %s failed: key=%s", self.resource.plural, key_of(args[-1]))


class SharedInformers:
    """The informers of one role: who asks for the same collection gets the same informer.

    An informer starts with `run`, or at once if that runs already, and lives until `run` ends: then `ended` is set, and who
    holds on to these informers must get new ones. ``on_failure`` is called whenever the server could not be listed or watched.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock,
        random: random.Random,
        log: Log | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.client = client
        self.ended = anyio.Event()
        self._clock, self._random, self._log = clock, random, log
        self._on_failure = on_failure
        self._informers: dict[tuple[Resource, str, str, str, bool], Informer] = {}
        self._unstarted: list[Informer] = []
        self._more = anyio.Event()

    def of(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> Informer:
        """Return the informer of a collection. ``metadata_only``: objects have no spec, no status and no data."""
        key = (resource, namespace, label_selector, field_selector, metadata_only)
        if metadata_only and (full := self._informers.get((*key[:4], False))) is not None:
            return full
        if (found := self._informers.get(key)) is None:
            found = self._informers[key] = Informer(
                self.client,
                resource,
                self._clock,
                self._random,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                metadata_only=metadata_only,
                transform=transform_of(resource),
                on_failure=self._on_failure,
                log=self._log,
            )
            self._unstarted.append(found)
            self._more.set()
        return found

    async def run(self) -> None:
        """Run all informers, those asked for later too, until cancelled. Once only."""
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    self._more = anyio.Event()
                    while self._unstarted:
                        informer = self._unstarted.pop(0)
                        tasks.start_soon(informer.run, name=f"informer: {informer.resource.plural}")
                    await self._more.wait()
        finally:
            self.ended.set()


def _version(obj: Object) -> Any:
    return obj["metadata"].get("resourceVersion")
