"""What SIGHUP does: reads the configuration again, lets the modules take over what they can, and names the rest.

``logging`` of every role is taken over here; of everything else a module says itself what it can (`edgesite.context.Module.reload`). What is
left takes effect at the next start, and the log says which members those are. A file that is not valid changes nothing.

Errors  None leave: what is wrong is logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgesite.runtime import logs
from edgesite.runtime.config.load import BadConfig
from edgesite.runtime.live import changed

if TYPE_CHECKING:
    from edgesite.context import Threads
    from edgesite.runtime.role import RoleHost

__all__ = ["Configuration", "take_logging"]

logger = logging.getLogger(__name__)
_ROLES = ("cloud", "edge")


class Configuration:
    """The values that this process was started with, and how to read them anew."""

    def __init__(
        self,
        values: Mapping[str, Any],
        read: Callable[[], tuple[Mapping[str, Any], list[str]]],
        *,
        verbosity: int | None = None,
    ) -> None:
        """``read`` blocks and raises BadConfig or OSError; ``verbosity`` is the command line's, which wins."""
        self._started_with = json.dumps(values)  # a tenth of the memory
        self._read, self._verbosity = read, verbosity

    async def reload(self, threads: Threads, roles: Iterable[RoleHost] = ()) -> None:
        """Read again, and let the roles take over what they can."""
        try:
            values, warnings = await threads.run(self._read)
        except (BadConfig, OSError) as exc:
            for line in getattr(exc, "problems", [str(exc)]):
                logger.error("the configuration is kept as it was: %s", line)
            return
        for one in warnings:
            logger.warning("%s", one)
        take_logging(values, self._verbosity)
        waiting = self._hand_over(values, roles)
        if waiting:
            logger.warning("these settings take effect at the next start: %s", ", ".join(waiting))
        logger.info("the configuration was read again%s", "" if waiting else "; nothing waits for a restart")

    def _hand_over(self, values: Mapping[str, Any], roles: Iterable[RoleHost]) -> list[str]:
        """Returns the members that nobody has taken over, as in the file."""
        taken = [(one.role, one.reload(_of(values, one.role))) for one in roles]
        for _, outcome in taken:
            for refusal in outcome.refused:
                logger.error("the former settings hold on: %s", refusal)
        news = {".".join(_in_file(role, path)) for role, outcome in taken for path in outcome.changed}
        if news:
            logger.info("taken over: %s", ", ".join(sorted(news)))

        def is_taken(path: tuple[str, ...]) -> bool:
            return path[1:2] == ("logging",) or any(
                outcome.covers(_in_role(path)) for role, outcome in taken if path[0] in _sections(role)
            )

        return [".".join(one) for one in changed(json.loads(self._started_with), values) if not is_taken(one)]


def take_logging(values: Mapping[str, Any], verbosity: int | None) -> None:
    """Set the levels that the roles' sections want; where both name a module, the edge's."""
    sections = [values[role]["logging"] for role in _ROLES if values.get(role)]
    wanted = [one["verbosity"] for one in sections if one["verbosity"] is not None]
    levels = {name: level for one in sections for name, level in one["levels"].items()}
    logs.set_levels(verbosity if verbosity is not None else max(wanted, default=0), levels)


# The cloud role has the section ``api`` of the file among its own members.


def _sections(role: str) -> tuple[str, ...]:
    return ("cloud", "api") if role == "cloud" else ("edge",)


def _of(values: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    return {**values["cloud"], "api": values["api"]} if role == "cloud" else values["edge"]


def _in_role(path: tuple[str, ...]) -> tuple[str, ...]:
    return path if path[0] == "api" else path[1:]


def _in_file(role: str, path: tuple[str, ...]) -> tuple[str, ...]:
    return path if role == "cloud" and path[0] == "api" else (role, *path)
