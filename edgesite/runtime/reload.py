"""What SIGHUP does: reads the configuration again, takes over what may change in a running process, and names the rest.

Taken over: ``logging`` of every role. Everything else takes effect at the next start, and the log says which members those are.
A file that is not valid changes nothing.

Errors  None leave: what is wrong is logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgesite.runtime import logs
from edgesite.runtime.config.load import BadConfig

if TYPE_CHECKING:
    from edgesite.context import Threads

__all__ = ["Configuration", "changed", "take_logging"]

logger = logging.getLogger(__name__)
_ROLES = ("cloud", "edge")


class Configuration:
    """The values that this process runs with, and how to read them anew."""

    def __init__(
        self,
        values: Mapping[str, Any],
        read: Callable[[], tuple[Mapping[str, Any], list[str]]],
        *,
        verbosity: int | None = None,
    ) -> None:
        """``read`` blocks and raises BadConfig or OSError; ``verbosity`` is the command line's, which wins."""
        self._running = json.dumps(values)  # a tenth of the memory
        self._read, self._verbosity = read, verbosity

    async def reload(self, threads: Threads) -> None:
        try:
            values, warnings = await threads.run(self._read)
        except (BadConfig, OSError) as exc:
            for line in getattr(exc, "problems", [str(exc)]):
                logger.error("the configuration is kept as it was: %s", line)
            return
        for one in warnings:
            logger.warning("%s", one)
        take_logging(values, self._verbosity)
        paths = [path for path in changed(json.loads(self._running), values) if path.split(".")[1:2] != ["logging"]]
        if paths:
            logger.warning("these settings take effect at the next start: %s", ", ".join(paths))
        logger.info("the configuration was read again%s", "" if paths else "; nothing waits for a restart")


def take_logging(values: Mapping[str, Any], verbosity: int | None) -> None:
    """Set the levels that the roles' sections want; where both name a module, the edge's."""
    sections = [values[role]["logging"] for role in _ROLES if values.get(role)]
    wanted = [one["verbosity"] for one in sections if one["verbosity"] is not None]
    levels = {name: level for one in sections for name, level in one["levels"].items()}
    logs.set_levels(verbosity if verbosity is not None else max(wanted, default=0), levels)


def changed(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The dotted paths whose values differ, each as deep as both have it."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            yield from changed(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield path
