"""One client's watch: events of a scope, written without a task, held back within bounds where the client reads slowly.

Units   Deadlines are monotonic seconds.
Errors  None leave: what goes wrong is told in an ERROR event, or by ending the watch.
State   What could not be written yet.
Source  Kubernetes API concepts (efficient detection of changes, watch bookmarks, streaming lists).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from edgesite.kube import json
from edgesite.kube.encoding import watch_line
from edgesite.net.outflow import Outflow

if TYPE_CHECKING:
    from edgesite.edge.metaserver.scopes import Change, Scope
    from edgesite.edge.metaserver.views import Views
    from edgesite.kube.errors import ApiError
    from edgesite.kube.negotiate import View

__all__ = ["Watcher", "error_line", "pieces"]

PIECE_BYTES: Final = 64 * 1024


def error_line(error: ApiError) -> bytes:
    """The event that ends a watch."""
    return watch_line("ERROR", json.dumps(error.status()))


def pieces(lines: Iterable[bytes], end: bytes = b"") -> Iterator[bytes]:
    """Join lines to pieces that are worth a write each."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    piece.append(end)
    if rest := b"".join(piece):
        yield rest


class Watcher(Outflow):
    """Implements `edgesite.edge.metaserver.scopes.Subscriber`. ``on_end`` is called once, when it is over."""

    __slots__ = ("_on_end", "_views", "bookmarks", "deadline", "said", "scope", "since", "token", "view")

    MOST_FRAMES = 1024
    MOST_BYTES = 1024 * 1024

    def __init__(
        self,
        scope: Scope,
        views: Views,
        view: View,
        *,
        token: str,
        since: int,
        deadline: float,
        bookmarks: bool,
        on_end: Callable[[Watcher], None],
    ) -> None:
        super().__init__()
        self.scope = scope
        self.view = view
        self.token = token
        self.since = since  #: what the client has seen
        self.deadline = deadline
        self.bookmarks = bookmarks
        self.said = 0  #: revision of the last bookmark or event
        self._views = views
        self._on_end = on_end

    def changed(self, change: Change) -> None:
        if change.revision > self.since:
            self.said = change.revision
            self.put(self._views.frame(self.scope.key.kind, change, self.view), len(change.value))

    def bookmark(self) -> None:
        """Tell how far the watch is, if that is news."""
        revision = self.scope.revision or 0
        if self.bookmarks and not self._backlog and revision >= self.since and revision > self.said:
            self.said = revision
            line = self._views.bookmark(self.scope.key.kind, revision, self.view)
            self.put(line, len(line))

    def failed(self, error: ApiError) -> None:
        """End with an ERROR event."""
        self.put(error_line(error))
        self.end()

    def left(self) -> None:
        self._on_end(self)
