"""Section ``logging`` of every kind: how much is logged. Ours alone; the one section that a running process reads again on SIGHUP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgesite.runtime.config.base import Model

__all__ = ["ProcessLogging"]


class ProcessLogging(Model):
    verbosity: int | None = Field(None, ge=0, le=10, description="as -v, which wins where it is given; default 0")
    levels: dict[str, Literal["debug", "info", "warning", "error"]] = Field(
        default_factory=dict, description="other levels for single modules: edgehub: debug"
    )
