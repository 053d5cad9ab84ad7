"""Which runtime this node uses: the one that the configuration names, or, with ``auto``, CRI where its socket answers.

State   ``runtime`` in edged's folder holds what was chosen before: a node whose pods run under CRI does not fall back to host
        processes because its runtime comes up later than edgesite.
Errors  RuntimeChoiceError: no plugin provides the runtime that is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio

from edgesite.context import Context
from edgesite.edge.edged.runtime import Runtime, RuntimeFault
from edgesite.edge.edged.settings import EdgedSettings

__all__ = ["RuntimeChoiceError", "choose_runtime"]

ANSWER_S: Final = 3.0
CRI: Final = "cri"
PROCESS: Final = "process"


class RuntimeChoiceError(Exception):
    """The configured runtime cannot be made."""


async def choose_runtime(ctx: Context, settings: EdgedSettings, folder: Path) -> Runtime:
    """Return the runtime, not running yet. Raises RuntimeChoiceError."""
    if settings.runtime != "auto":
        return _make(ctx, settings.runtime)
    note = folder / "runtime"
    before = await ctx.threads.run(_read, note)
    if before != CRI and not (await ctx.threads.run(_is_there, settings.runtime_endpoint) and await _answers(ctx)):
        ctx.log.info("no container runtime answers at %s", settings.runtime_endpoint)
        return _make(ctx, PROCESS)
    if before != CRI:
        await ctx.threads.run(note.write_text, CRI)
    return _make(ctx, CRI)


def _make(ctx: Context, name: str) -> Runtime:
    factory = ctx.hooks.runtime(name, ctx.config)
    if factory is None:
        raise RuntimeChoiceError(f"no plugin provides the pod runtime {name!r}")
    runtime: Runtime = factory(ctx)
    return runtime


async def _answers(ctx: Context) -> bool:
    runtime = _make(ctx, CRI)
    started = anyio.Event()
    found = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.run, started.set)
        with anyio.move_on_after(ANSWER_S):
            await started.wait()
            try:
                await runtime.version()
                found = True
            except RuntimeFault:
                found = False
        tasks.cancel_scope.cancel()
    return found


def _is_there(endpoint: str) -> bool:
    """Whether the socket exists: without one there is no need to load gRPC and ask."""
    return not endpoint.startswith(("unix://", "/")) or Path(endpoint.removeprefix("unix://")).exists()


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
