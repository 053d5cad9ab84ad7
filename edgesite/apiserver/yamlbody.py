"""Bodies in YAML: read with the limits and the types of JSON, written for people.

Errors  ApiError BadRequest.
State   None. Only imported when a body in YAML is met.
Source  YAML 1.1 as PyYAML reads it; Kubernetes reads YAML by way of JSON, hence strings as keys and no timestamps.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from edgesite.kube import errors

__all__ = ["parse", "render"]

_MAX_NODES: Final = 200_000  #: values in one document once aliases are followed; bodies of the API stay far below


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """The safe loader without timestamps: dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in _Loader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.CSafeDumper if hasattr(yaml, "CSafeDumper") else yaml.SafeDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse(body: bytes) -> Any:
    """Return the JSON value of a YAML document. Raises ApiError (BadRequest)."""
    try:
        return _Plain().value(yaml.load(body, Loader=_Loader))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as exc:
        text = " ".join(str(exc).split())
        raise errors.bad_request(f"error converting YAML to JSON: yaml: {text}") from None


def render(value: Any) -> bytes:
    """Return a JSON value as YAML."""
    text: bytes = yaml.dump(value, Dumper=_Dumper, encoding="utf-8", allow_unicode=True, default_flow_style=False)
    return text


class _Plain:
    """Turns what YAML may hold into what JSON may: keys are strings. Counts, so that aliases cannot swell a small body."""

    def __init__(self) -> None:
        self._left = _MAX_NODES

    def value(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("document contains excessive aliasing")
        if isinstance(value, dict):
            return {self._key(key): self.value(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float) and value - value == 0:
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8")
        raise ValueError(f"{type(value).__name__} is no JSON value")

    def _key(self, key: Any) -> str:
        if isinstance(key, bool):
            return "true" if key else "false"
        if isinstance(key, str | int | float):
            return str(key)
        raise ValueError("a key must be a string")
