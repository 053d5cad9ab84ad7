"""The configuration section of this plugin; imported only where configuration is checked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GreeterSection(BaseModel):
    """``modules.greeter`` of the edge role."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enable: bool = True
    greeting: str = Field("Hello", min_length=1, max_length=80)
    intervalSeconds: float = Field(60.0, gt=0)
