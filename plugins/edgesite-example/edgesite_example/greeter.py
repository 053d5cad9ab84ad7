"""Module ``greeter``: says its greeting at an interval. A module's whole life in twenty lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prometheus_client import Counter

if TYPE_CHECKING:
    from edgesite.context import Context, Section


class Greeter:
    name: ClassVar[str] = "greeter"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = "modules.greeter"

    def enabled(self, settings: Section) -> bool:
        return bool(settings.modules.greeter.enable)

    async def run(self, ctx: Context) -> None:
        greetings = Counter("example_greetings", "Greetings said", registry=ctx.metrics)
        try:
            ctx.ready()
            while True:
                ctx.log.info("%s from node %s", ctx.config.greeting, ctx.node_name)
                greetings.inc()
                await ctx.clock.sleep(ctx.config.intervalSeconds)
        finally:
            ctx.metrics.unregister(greetings)  # a restart registers it again
