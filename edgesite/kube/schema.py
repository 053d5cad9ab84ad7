"""What the API's kinds consist of: definitions, their fields, and how lists and maps in them merge.

    schemas = load()                                     quick: nothing is decoded before it is asked for
    schemas.definition_of("apps", "v1", "Deployment")    name of the kind's definition, or None (a kind without a schema)
    schemas.definition(name)                             its fields
    schemas.merge_info(name, "spec")                     the `Field`, or None for an unknown one: what patches and apply walk by

A kind's own definition is where a walk starts; for a field of type "struct", ``Field.definition`` is where it goes on; for
"array" and "map", ``Field.items`` describes elements and values. `schema_decode` checks and prunes objects along this.

Errors  LookupError when the data files were not built (``python -m edgesite.kube.distil``).
State   The decompressed structure (some 150 KB) and those definitions that were asked for.
Source  Kubernetes' OpenAPI, distilled by `edgesite.kube.distil`.
"""

from __future__ import annotations

import pkgutil
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

__all__ = ["Blobs", "Definition", "Field", "Schemas", "load"]


class Field(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one field holds, or one element of a list or value of a map.

    ``type`` is one of: string, integer, number, boolean, bytes (base64 text), quantity, int-or-string, time, microtime, struct,
    array, map (``items`` tells of its values), object (free-form object), any.
    """

    type: str
    definition: str = ""  #: of a struct, or of a scalar that has a name ("…resource.Quantity")
    format: str = ""
    items: Field | None = None
    list_type: str = ""  #: "atomic", "set", "map"; "" means atomic
    list_map_keys: tuple[str, ...] = ()
    map_type: str = ""  #: "atomic", "granular"; "" means granular. Also set where the struct's definition says so
    patch_strategies: tuple[str, ...] = ()  #: of strategic merge patch: "merge", "replace", "retainKeys"
    merge_key: str = ""  #: of strategic merge patch; "" for a merged list of scalars

    @property
    def is_atomic(self) -> bool:
        """Whether server-side apply owns the value as a whole."""
        if self.type == "array":
            return self.list_type not in ("set", "map")
        if self.type in ("struct", "map"):
            return self.map_type == "atomic"
        return True

    @property
    def key_defaults(self) -> dict[str, str]:
        """Values that a key of an associative list has where an element leaves it out."""
        return {"protocol": "TCP"} if "protocol" in self.list_map_keys else {}


class Definition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One definition: a struct with ``fields``, or (``type`` not "struct") a named scalar."""

    type: str
    format: str
    map_type: str
    kinds: tuple[tuple[str, str, str], ...]  #: (group, version, kind) that this is the definition of
    required: frozenset[str]
    fields: dict[str, Field]
    keeps: bool = False  #: whether there may be other fields, of which nothing is known


class Blobs:
    """A file of named blobs behind one index, as `edgesite.kube.distil` writes it."""

    __slots__ = ("_content", "_index", "_start")

    def __init__(self, packed: bytes) -> None:
        self._content = zlib.decompress(packed)
        self._start = self._content.index(b"\n") + 1
        self._index = msgspec.json.decode(self._content[: self._start - 1], type=dict[str, tuple[int, int]])

    @classmethod
    def of(cls, name: str) -> Blobs:
        """Read one data file of this package. Raises LookupError if it was not built."""
        try:
            packed = pkgutil.get_data(__package__, f"data/{name}")
        except FileNotFoundError:
            packed = None
        if packed is None:
            raise LookupError(f"{name} is missing in this installation: run python -m edgesite.kube.distil") from None
        return cls(packed)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __getitem__(self, name: str) -> memoryview:
        """Raises KeyError."""
        offset, length = self._index[name]
        start = self._start + offset
        return memoryview(self._content)[start : start + length]


class Schemas:
    """The definitions of all kinds."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._decoder = msgspec.json.Decoder(Definition)
        self._definitions: dict[str, Definition] = {}
        self._zeros: dict[str, dict[str, Any]] = {}
        self._added: dict[str, Definition] = {}
        self._openapi: dict[str, dict[str, Any]] = {}
        self._kinds: dict[tuple[str, str, str], str | None] = {}

    def __iter__(self) -> Iterator[str]:
        """The names of Kubernetes' own definitions, sorted."""
        return iter(self._blobs)

    def scratch(self) -> Schemas:
        """The same definitions with a cache of its own, for who reads all of them once."""
        other = Schemas(self._blobs)
        other._added = self._added
        other._openapi = self._openapi
        other._kinds = dict(self._kinds)
        return other

    def has(self, name: str) -> bool:
        """Whether there is a definition of this name."""
        return name in self._blobs or name in self._added

    def add(self, name: str, definition: Definition, openapi: dict[str, Any] | None = None) -> None:
        """Add a definition of a custom resource, or replace it; ``openapi`` is its schema as the CRD has it.

        Raises ValueError for a name of Kubernetes' own.
        """
        if name in self._blobs:
            raise ValueError(f"{name} is a definition of Kubernetes")
        self._added[name] = definition
        if openapi is not None:
            self._openapi[name] = openapi
        for kind in definition.kinds:
            self._kinds[kind] = name

    def remove(self, name: str) -> None:
        """Take out what was added; an unknown name is fine."""
        definition = self._added.pop(name, None)
        self._openapi.pop(name, None)
        for kind in definition.kinds if definition is not None else ():
            self._kinds.pop(kind, None)

    def openapi(self, name: str) -> dict[str, Any] | None:
        """The schema of a custom resource as its CRD has it; None for other definitions."""
        return self._openapi.get(name)

    def definition(self, name: str) -> Definition:
        """Raises KeyError for an unknown name."""
        known = self._definitions.get(name) or self._added.get(name)
        if known is None:
            known = self._definitions[name] = self._decoder.decode(self._blobs[name])
        return known

    def zeros(self, name: str) -> dict[str, Any]:
        """The scalar fields that a struct always has, with what they are where nobody says. Raises KeyError."""
        known = self._zeros.get(name)
        if known is None:
            definition = self.definition(name)
            known = {
                field: _ZEROS[definition.fields[field].type]
                for field in sorted(definition.required)
                if field in definition.fields and definition.fields[field].type in _ZEROS
            }
            if name in self._blobs:
                self._zeros[name] = known
        return known

    def definition_of(self, group: str, version: str, kind: str) -> str | None:
        """The name of a kind's definition; None for kinds without a schema."""
        key = (group, version, kind)
        if key not in self._kinds and (name := self._find(key)) is not None:
            self._kinds[key] = name
        return self._kinds.get(key)

    def _find(self, key: tuple[str, str, str]) -> str | None:
        group, version, kind = key
        for prefix in (f"io.k8s.api.{group.removesuffix('.k8s.io').split('.')[0] or 'core'}", *_OTHER_PACKAGES):
            name = f"{prefix}.{version}.{kind}"
            if name in self._blobs and key in self.definition(name).kinds:
                return name
        return None

    def field(self, definition: str, name: str) -> Field | None:
        """One field of a definition; None for an unknown one. Raises KeyError for an unknown definition."""
        return self.definition(definition).fields.get(name)

    merge_info = field


_ZEROS: Final[dict[str, Any]] = {"boolean": False, "integer": 0, "string": ""}
#: Packages of definitions outside of io.k8s.api.
_OTHER_PACKAGES = (
    "io.k8s.apimachinery.pkg.apis.meta",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration",
)


def load() -> Schemas:
    """Return the schemas. Raises LookupError if the data files were not built."""
    return Schemas(Blobs.of("structure.bin"))
