"""Which runtime this node uses: the one that the configuration names, or, with ``auto``, CRI where its socket answers.

State   ``runtime`` in edged's folder holds what was chosen before: a node whose pods run under CRI does not fall back to host
        processes because its runtime comes up later than edgesite. Nor does one on which a Go edgecore has run pods.
Errors  RuntimeChoiceError: no plugin provides the runtime that is named.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import anyio

from edgesite.context import Context, Section
from edgesite.edge.edged.runtime import Runtime, RuntimeFault
from edgesite.edge.edged.settings import EdgedSettings

__all__ = ["RuntimeChoiceError", "choose_runtime"]

ANSWER_S: Final = 3.0
CRI: Final = "cri"
PROCESS: Final = "process"
DOCKERSHIM: Final = "/dockershim.sock"
INSTEAD: Final = ("unix:///run/cri-dockerd.sock", "unix:///run/containerd/containerd.sock")


class RuntimeChoiceError(Exception):
    """The configured runtime cannot be made."""


async def choose_runtime(ctx: Context, settings: EdgedSettings, folder: Path) -> Runtime:
    """Return the runtime, not running yet. Raises RuntimeChoiceError."""
    endpoint = await ctx.threads.run(_endpoint, settings.runtime_endpoint)
    if endpoint != settings.runtime_endpoint:
        ctx.log.info("kubelet's own dockershim is gone since Kubernetes 1.24; %s stands in for it", endpoint)
        members = {"remoteRuntimeEndpoint": endpoint, "remoteImageEndpoint": ""}
        ctx = replace(ctx, config=Section(ctx.config.plain() | members))
    if settings.runtime != "auto":
        return _make(ctx, settings.runtime)
    note = folder / "runtime"
    before = await ctx.threads.run(_before, note, ctx.data_dir)
    if before != CRI and not (await ctx.threads.run(_is_there, endpoint) and await _answers(ctx)):
        ctx.log.info("no container runtime answers at %s", endpoint)
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


def _endpoint(configured: str) -> str:
    """Where the runtime is. The socket of dockershim, KubeEdge's default until v1.12, was one of edgecore itself."""
    if not configured.endswith(DOCKERSHIM) or _is_there(configured):
        return configured
    return next((one for one in INSTEAD if _is_there(one)), INSTEAD[-1])


def _before(note: Path, data_dir: Path) -> str:
    """What ran pods here before. Pods without a note of ours are a Go edgecore's."""
    if note.exists():
        return note.read_text().strip()
    pods = note.parent / "pods"
    return CRI if pods.is_dir() and any(pods.iterdir()) and not (data_dir / PROCESS).exists() else ""
