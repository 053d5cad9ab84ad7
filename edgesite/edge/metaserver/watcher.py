"""One client's watch: events of a scope, written without a task, held back within bounds where the client reads slowly.

Units   Deadlines are monotonic seconds.
Errors  None leave: what goes wrong is told in an ERROR event, or by ending the watch.
State   What could not be written yet.
Source  Kubernetes API concepts (efficient detection of changes, watch bookmarks, streaming lists).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from edgesite.kube import json
from edgesite.kube.encoding import watch_line
from edgesite.net.errors import ClosedByPeer, WouldBlock

if TYPE_CHECKING:
    from edgesite.edge.metaserver.scopes import Change, Scope
    from edgesite.edge.metaserver.views import Views
    from edgesite.kube.errors import ApiError
    from edgesite.kube.negotiate import View
    from edgesite.net.http import BodyWriter, Frame

__all__ = ["Watcher", "error_line", "pieces"]

BACKLOG_FRAMES: Final = 1024
BACKLOG_BYTES: Final = 1024 * 1024
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


class Watcher:
    """Implements `edgesite.edge.metaserver.scopes.Subscriber`. ``on_end`` is called once, when it is over."""

    __slots__ = (
        "_backlog", "_backlog_bytes", "_ended", "_held", "_initial", "_on_end", "_views", "_writer", "bookmarks", "deadline",
        "said", "scope", "since", "token", "view",
    )  # fmt: skip

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
        self.scope = scope
        self.view = view
        self.token = token
        self.since = since  #: what the client has seen
        self.deadline = deadline
        self.bookmarks = bookmarks
        self.said = 0  #: revision of the last bookmark or event
        self._views = views
        self._on_end = on_end
        self._ended = False
        self._writer: BodyWriter | None = None
        self._initial: Iterator[bytes] | None = None
        self._held: bytes | Frame | None = None
        self._backlog: deque[bytes | Frame] = deque()
        self._backlog_bytes = 0

    def start(self, writer: BodyWriter, initial: Iterator[bytes]) -> None:
        """Write what comes first; changes may have come already."""
        self._writer, self._initial = writer, initial
        self.flush()

    def changed(self, change: Change) -> None:
        if change.revision > self.since:
            self.said = change.revision
            self._send(self._views.frame(self.scope.key.kind, change, self.view), len(change.value))

    def bookmark(self) -> None:
        """Tell how far the watch is, if that is news."""
        revision = self.scope.revision or 0
        if self.bookmarks and not self._backlog and revision >= self.since and revision > self.said:
            self.said = revision
            line = self._views.bookmark(self.scope.key.kind, revision, self.view)
            self._send(line, len(line))

    def failed(self, error: ApiError) -> None:
        """End with an ERROR event."""
        self._send(error_line(error), 0)
        self.end()

    def _send(self, frame: bytes | Frame, size: int) -> None:
        if self._ended:
            return
        self._backlog.append(frame)
        self._backlog_bytes += size
        self.flush()
        if len(self._backlog) > BACKLOG_FRAMES or self._backlog_bytes > BACKLOG_BYTES:
            self.end()  # it watches again from where it is

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        writer = self._writer
        if writer is None:
            return
        try:
            while self._held is not None or self._next():
                writer.write_nowait(self._held)  # type: ignore[arg-type]
                self._held = None
        except WouldBlock:
            return
        except ClosedByPeer:
            self.leave()

    def _next(self) -> bool:
        if self._initial is not None:
            self._held = next(self._initial, None)
            if self._held is None:
                self._initial = None
        if self._held is None and self._backlog:
            self._held = self._backlog.popleft()
            if not self._backlog:
                self._backlog_bytes = 0
        return self._held is not None

    def leave(self) -> None:
        """The client is gone, or the watch is over. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._backlog.clear()
        self._initial = self._held = None
        self._on_end(self)

    def end(self) -> None:
        """End the answer in order."""
        if not self._ended:
            self.leave()
            if self._writer is not None:
                self._writer.close()
