"""Topics that the cloud subscribed to, in KubeEdge's table ``sub_topics`` of the edge's database.

Errors  StoreError from all that writes or reads the disk; then nothing has changed.
Source  KubeEdge v1.12.7, edge/pkg/eventbus/dao.
"""

from __future__ import annotations

from typing import Final

from edgesite.context import Services
from edgesite.edge.metamanager.rows import Rows
from edgesite.edge.metamanager.store import StoreError

__all__ = ["MOST", "Subscriptions"]

MOST: Final = 1000
_TABLE: Final = "CREATE TABLE IF NOT EXISTS `sub_topics` (`topic` text NOT NULL PRIMARY KEY)"


class Subscriptions:
    """The topics, in memory and on disk."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.topics: dict[str, None] = {}

    async def load(self) -> None:
        rows = self._rows()
        await rows.write([(_TABLE, ())])
        found = await rows.query("SELECT topic FROM sub_topics ORDER BY rowid LIMIT ?", (MOST,))
        self.topics = {str(row[0]): None for row in found if row[0]}

    async def add(self, topic: str) -> None:
        """Raises ValueError when there are too many."""
        if topic not in self.topics and len(self.topics) >= MOST:
            raise ValueError(f"the cloud has subscribed to {MOST} topics of this node already")
        await self._rows().write([("REPLACE INTO sub_topics (topic) VALUES (?)", (topic,))])
        self.topics[topic] = None

    async def remove(self, topic: str) -> None:
        await self._rows().write([("DELETE FROM sub_topics WHERE topic = ?", (topic,))])
        self.topics.pop(topic, None)

    def _rows(self) -> Rows:
        """Of the metamanager that there is now."""
        rows = self._services.find(Rows)  # type: ignore[type-abstract]
        if rows is None:
            raise StoreError("the edge's database is not open at the moment")
        return rows
