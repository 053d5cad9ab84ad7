"""Mappers and what they have been told, in the edge's database.

    meta                   key "node/nodeID/namespace/devicemapper/<name>", type "devicemapper": KubeEdge's, read by its edgecore too
    edgesite_dmi_told      which device or model a mapper has, as a digest of what it was sent

Changes of what was told are gathered by who calls `save`. One that is lost in a crash is told once more.

Errors  StoreError from all but the constructor.
Source  KubeEdge v1.12.7, edge/pkg/devicetwin/dmiserver (key and value).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from edgesite.context import Services
from edgesite.edge.dmi.mappers import MapperInfo
from edgesite.edge.metamanager.rows import Rows, Statement
from edgesite.edge.metamanager.store import StoreError
from edgesite.kube import json

__all__ = ["Change", "Key", "Records", "Stored", "Told"]

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS `edgesite_dmi_told` (`mapper` text NOT NULL, `kind` text NOT NULL, `namespace` text NOT NULL,"
    " `name` text NOT NULL, `digest` text NOT NULL, `model` text NOT NULL, PRIMARY KEY (`mapper`, `kind`, `namespace`, `name`))"
)
_PREFIX: Final = "node/nodeID/namespace/devicemapper/"


@dataclass(frozen=True, slots=True)
class Key:
    """A device or a model."""

    kind: Literal["device", "devicemodel"]
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a mapper was sent last; ``model`` is the name of a device's. An empty digest: something was sent, but not confirmed."""

    digest: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    mapper: str
    key: Key
    told: Told | None  #: None: it has been removed


@dataclass(slots=True)
class Stored:
    """What `Records.load` found."""

    mappers: list[MapperInfo] = field(default_factory=list)
    told: dict[str, dict[Key, Told]] = field(default_factory=dict)


class Records:
    """See the module docstring."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def load(self) -> Stored:
        found = Stored()
        rows = self._rows()
        await rows.write([(_TABLE, ())])
        mappers = await rows.query("SELECT value FROM meta WHERE type = 'devicemapper' ORDER BY key LIMIT 1000")
        told = await rows.query(
            "SELECT mapper, kind, namespace, name, digest, model FROM edgesite_dmi_told ORDER BY rowid"
        )
        for (text,) in mappers:
            try:
                info = MapperInfo.from_json(json.loads(text or "null"))
            except json.InvalidJson:
                continue
            if info is not None:
                found.mappers.append(info)
        for mapper, kind, namespace, name, digest, model in told:
            found.told.setdefault(mapper, {})[Key(kind, namespace, name)] = Told(digest, model)
        return found

    async def register(self, info: MapperInfo, told: dict[Key, Told]) -> None:
        """Keep a mapper, and that it has been told this and nothing else."""
        value = json.dumps(info.to_json()).decode()
        statements: list[Statement] = [
            ("REPLACE INTO meta VALUES (?, 'devicemapper', ?)", (_PREFIX + info.name, value)),
            ("DELETE FROM edgesite_dmi_told WHERE mapper = ?", (info.name,)),
        ]
        statements += [_statement(Change(info.name, key, one)) for key, one in told.items()]
        await self._rows().write(statements)

    async def forget(self, name: str) -> None:
        await self._rows().write(
            [
                ("DELETE FROM meta WHERE key = ?", (_PREFIX + name,)),
                ("DELETE FROM edgesite_dmi_told WHERE mapper = ?", (name,)),
            ]
        )

    async def save(self, changes: Iterable[Change]) -> None:
        await self._rows().write([_statement(one) for one in changes])

    def _rows(self) -> Rows:
        """Of the metamanager that there is now."""
        rows = self._services.find(Rows)  # type: ignore[type-abstract]
        if rows is None:
            raise StoreError("the edge's database is not open at the moment")
        return rows


def _statement(change: Change) -> Statement:
    key, told = change.key, change.told
    place = (change.mapper, key.kind, key.namespace, key.name)
    if told is None:
        return "DELETE FROM edgesite_dmi_told WHERE mapper = ? AND kind = ? AND namespace = ? AND name = ?", place
    return "REPLACE INTO edgesite_dmi_told VALUES (?, ?, ?, ?, ?, ?)", (*place, told.digest, told.model)
