"""The plugin ABI: what plugins of this ABI number were promised is still there. See docs/plugins.md.

plugin_abi_1.json is the promise. Additions are put into it when they are released: ``python tests/unit/runtime/test_plugin_abi.py``.
What this test misses, raise `ABI` for.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from edgesite import context, hookspecs

Shape = dict[str, list[str]]
RECORD = Path(__file__).with_name(f"plugin_abi_{hookspecs.ABI}.json")


def shapes() -> dict[str, Shape]:
    """Each public class with its members; functions are lists of parameters, those with a default end with "="."""
    found = {f"hookspecs.{name}": shape for name, shape in _classes(hookspecs).items()}
    found |= {f"context.{name}": shape for name, shape in _classes(context).items()}
    found["hooks"] = _members(hookspecs.Specs)
    return found


def _classes(module: ModuleType) -> dict[str, Shape]:
    public = {name: getattr(module, name) for name in module.__all__}
    return {name: _members(one) for name, one in public.items() if inspect.isclass(one)}


def _members(kind: type) -> Shape:
    found: Shape = {name: ["attribute"] for name in inspect.get_annotations(kind)}
    if dataclasses.is_dataclass(kind):
        found["()"] = [_shown(one) for one in inspect.signature(kind).parameters.values()]
    for name, one in vars(kind).items():
        if not name.startswith("_") and inspect.isfunction(one):
            found[name] = [_shown(parameter) for parameter in inspect.signature(one).parameters.values()]
    return found


def _shown(one: inspect.Parameter) -> str:
    star = "*" if one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL) else ""
    return f"{star}{one.name}{'' if one.default is one.empty else '='}"


def broken(promised: dict[str, Shape], present: dict[str, Shape]) -> list[str]:
    """What plugins were promised and would no longer find."""
    found = []
    for name, members in promised.items():
        for member, parameters in members.items():
            now: Any = present.get(name, {}).get(member)
            if now is None:
                found.append(f"{name}.{member} is gone")
            elif name == "hooks" and now[: len(parameters)] == parameters:
                continue  # implementations name the arguments that they want
            elif now[: len(parameters)] != parameters or any(not one.endswith("=") for one in now[len(parameters) :]):
                found.append(f"{name}.{member}: {parameters} has become {now}")
    return found


def test_what_plugins_were_promised_is_there() -> None:
    assert broken(json.loads(RECORD.read_text()), shapes()) == []


def test_a_breach_is_seen() -> None:
    promised = {"context.Clock": {"sleep": ["self", "seconds"], "time": ["self"]}}
    assert broken(promised, shapes()) == []
    assert broken(promised, {"context.Clock": {"time": ["self"]}}) == ["context.Clock.sleep is gone"]
    assert broken(promised, {"context.Clock": {"time": ["self"], "sleep": ["self", "seconds", "why"]}}) != []
    assert broken(promised, {"context.Clock": {"time": ["self"], "sleep": ["self", "seconds", "*why="]}}) == []


if __name__ == "__main__":
    RECORD.write_text(json.dumps(shapes(), indent=1, sort_keys=True) + "\n")
    sys.exit(0)
