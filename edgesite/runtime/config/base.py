"""What all configuration models share: strict types, Go-style durations, and the JSON names of the files as field names."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Duration", "Model", "Port", "PortOrZero"]

_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+|0")


class Model(BaseModel):
    """A section. Unknown members are refused before pydantic sees them (`reader.normalise`), with path and line."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, coerce_numbers_to_str=False)


def _check_duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError(f'"{text}" is no duration; write for example 10s, 1m30s or 24h')
    return text


Duration = Annotated[str, AfterValidator(_check_duration)]
Port = Annotated[int, Field(ge=1, le=65535)]
PortOrZero = Annotated[int, Field(ge=0, le=65535)]
