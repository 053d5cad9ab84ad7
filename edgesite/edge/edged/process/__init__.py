"""The process runtime: a pod's containers as process groups of the host, where no container runtime answers.

It isolates nothing, needs no root and no images; `edgesite.edge.edged.process.runtime` says how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.edged.runtime import Runtime

__all__ = ["factory"]


def factory(ctx: Context) -> Runtime:
    """Make the runtime (`edgesite.hookspecs.RuntimeFactory`); its files are in ``process`` below the role's data directory."""
    from edgesite.edge.edged.machine import LinuxMachine, Machine
    from edgesite.edge.edged.process.runtime import ProcessRuntime
    from edgesite.edge.edged.settings import EdgedSettings

    settings = EdgedSettings.of(ctx.config)
    machine: Machine = ctx.services.find(Machine) or LinuxMachine()  # type: ignore[type-abstract]

    def address() -> str:
        if settings.node_ip:
            return settings.node_ip
        facts = machine.facts(ctx.data_dir, settings.resolv_conf, settings.interface)
        return next(iter(facts.addresses), "127.0.0.1")

    return ProcessRuntime(
        ctx.data_dir / "process",
        net=ctx.net,
        clock=ctx.clock,
        threads=ctx.threads,
        random=ctx.random,
        address=address,
    )
