"""Validates configuration: file, environment and ``--set`` in, plain data or named errors out. Runs in a child process.

Member names match without regard to case, and ``null`` means the default, as KubeEdge reads its files; but unlike there an
unknown member is an error that names path and line.

Errors  Problem: everything wrong with the configuration, one line each.
"""

from __future__ import annotations

import difflib
import importlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from edgesite.runtime.config import cloud, edge
from edgesite.runtime.config.site import EdgeSite
from edgesite.runtime.config.yamlfile import BadFile, Lines, parse

__all__ = ["Problem", "Request", "defaults", "validate"]

#: Root of the values that a file of each kind gives.
_ROOT = {"EdgeSite": (), "CloudCore": ("cloud",), "EdgeCore": ("edge",)}
_MAX_FILE_BYTES = 1024 * 1024


class Problem(ValueError):
    """``lines`` says what is wrong, each with the place."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


@dataclass(slots=True)
class Request:
    """What to validate. ``kind`` is EdgeSite, CloudCore or EdgeCore; ``underlay`` holds defaults of this process."""

    kind: str
    file: str | None = None
    sets: Sequence[str] = ()
    underlay: Mapping[str, Any] = field(default_factory=dict)
    overlay: Mapping[str, Any] = field(default_factory=dict)  #: from command-line flags: wins over file and environment
    sections: Sequence[tuple[str, str, str]] = ()  #: of plugins: role, dotted path, "module:Class"


def validate(request: Request) -> tuple[dict[str, Any], list[str]]:
    """Return the whole site's values and the warnings. Raises Problem."""
    model = _with_plugin_sections(EdgeSite, request.sections)
    root = _ROOT[request.kind]
    errors: list[str] = []
    warnings: list[str] = []
    merged = _copy(request.underlay)
    if request.file:
        values, lines = _read(request.file, request.kind, warnings)
        reader = _Reader(request.file, lines, root, errors, warnings)
        _merge(merged, reader.normalise(model, _nest(root, values), ()))
    plain = _Reader("", {}, root, errors, warnings)
    environment = EnvSettingsSource(
        EdgeSite, case_sensitive=False, env_prefix="EDGESITE_", env_nested_delimiter="__", env_ignore_empty=True
    )()
    plain.origin = "environment EDGESITE_"
    _merge(merged, plain.normalise(model, environment, ()))
    plain.origin = "--set "
    for one in request.sets:
        try:
            _merge(merged, plain.normalise(model, _parse_set(one, root), ()))
        except ValueError as exc:
            errors.append(str(exc))
    _merge(merged, _copy(request.overlay))
    if errors:
        raise Problem(errors)
    try:
        site = model.model_validate(merged, by_name=True)
    except ValidationError as exc:
        lines = _read(request.file, request.kind, [])[1] if request.file else {}
        raise Problem([_explain(one, request.file or "", lines, root) for one in exc.errors()]) from None
    return site.model_dump(), warnings


def defaults(kind: str, *, minimal: bool = False, underlay: Mapping[str, Any] | None = None) -> str:
    """Return the configuration file of that kind as YAML, with comments, as ``--defaultconfig`` and ``--minconfig`` print it."""
    site = EdgeSite.model_validate(underlay or {})
    values: dict[str, Any] = site.model_dump()
    if kind != "EdgeSite":
        values = values[_ROOT[kind][0]]
    if minimal:
        values = _minimal(kind, values)
    kinds = {"EdgeSite": "cloud and edge in one process", "CloudCore": "the cloud role", "EdgeCore": "the edge role"}
    size = "The least that is usually changed; everything else keeps its default." if minimal else "Every member."
    head = f"# Configuration of {kinds[kind]} ({kind}).\n# {size}\n# Names are matched without regard to case; unknown names are errors.\n\n"
    return head + yaml.safe_dump(values, sort_keys=True, default_flow_style=False) + "\n"


def _minimal(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    if kind == "EdgeSite":
        return {
            "apiVersion": values["apiVersion"],
            "kind": kind,
            "api": {"address": values["api"]["address"]},
            "cloud": _minimal("CloudCore", values["cloud"]),
            "edge": _minimal("EdgeCore", values["edge"]),
        }
    modules = values["modules"]
    if kind == "CloudCore":
        hub = modules["cloudHub"]
        wanted = (
            "enable",
            "nodeLimit",
            "tlsCAFile",
            "tlsCAKeyFile",
            "tlsCertFile",
            "tlsPrivateKeyFile",
            "advertiseAddress",
        )
        kept = {
            "cloudHub": {name: hub[name] for name in (*wanted, "unixsocket", "websocket", "https")},
            "router": modules["router"],
            "iptablesManager": modules["iptablesManager"],
        }
        return {
            "apiVersion": values["apiVersion"],
            "kind": kind,
            "kubeAPIConfig": values["kubeAPIConfig"],
            "modules": kept,
        }
    hub, bus = modules["edgeHub"], modules["eventBus"]
    edged = {name: value for name, value in modules["edged"].items() if name != "tailoredKubeletConfig"}
    hub_names = (
        "enable",
        "heartbeat",
        "tlsCaFile",
        "tlsCertFile",
        "tlsPrivateKeyFile",
        "websocket",
        "httpServer",
        "token",
    )
    bus_names = ("enable", "mqttQOS", "mqttRetain", "mqttServerInternal", "mqttServerExternal", "mqttMode")
    return {
        "apiVersion": values["apiVersion"],
        "kind": kind,
        "database": {"dataSource": values["database"]["dataSource"]},
        "modules": {
            "edged": edged,
            "edgeHub": {name: hub[name] for name in hub_names},
            "eventBus": {name: bus[name] for name in bus_names},
        },
    }


def _read(path: str, kind: str, warnings: list[str]) -> tuple[dict[str, Any], Lines]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise Problem(
            [f"config file {path} does not exist; --defaultconfig prints a complete one, --minconfig a short one"]
        ) from None
    except OSError as exc:
        raise Problem([f"{path}: {exc.strerror}"]) from None
    if len(data) > _MAX_FILE_BYTES:
        raise Problem([f"{path}: larger than {_MAX_FILE_BYTES} bytes"])
    try:
        values, lines = parse(data.decode(), path)
    except UnicodeDecodeError:
        raise Problem([f"{path}: is not UTF-8 text"]) from None
    except BadFile as exc:
        raise Problem([str(exc)]) from None
    given = values.get("kind")
    if given is not None and given != kind:
        raise Problem([f"{path}:{lines.get(('kind',), 1)}: kind is {given}, but {kind} is needed here"])
    edge_values = values if kind == "EdgeCore" else values.get("edge") if kind == "EdgeSite" else None
    if isinstance(edge_values, dict):
        warnings.extend(f"{path}: {one}" for one in edge.convert_v1alpha1(edge_values))
    return values, lines


def _parse_set(text: str, root: tuple[str, ...]) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip("."):
        raise ValueError(f'--set "{text}": write KEY=VALUE, for example modules.eventBus.mqttMode=2')
    parts = name.strip().split(".")
    if root and parts[0] in ("api", "cloud", "edge"):
        root = ()
    try:
        parsed = yaml.safe_load(value) if value else ""
    except yaml.YAMLError:
        parsed = value
    nested: Any = parsed
    for part in reversed(parts):
        nested = {part: nested}
    return _nest(root, nested)


class _Reader:
    """Brings raw values to the models' spelling and reports what no model knows."""

    def __init__(self, file: str, lines: Lines, root: tuple[str, ...], errors: list[str], warnings: list[str]) -> None:
        self._file, self._lines, self._root = file, lines, root
        self._errors, self._warnings = errors, warnings
        self.origin = ""

    def normalise(self, model: type[BaseModel], raw: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
        if not isinstance(raw, Mapping):
            self._errors.append(f"{self._place(path)}: must be a mapping, not {_word(raw)}")
            return {}
        by_lower = {name.lower(): name for name in model.model_fields}
        out: dict[str, Any] = {}
        for key, value in raw.items():
            name = by_lower.get(str(key).lower())
            here = (*path, str(key))
            if name is None:
                self._unknown(here, by_lower.values())
            elif value is not None:
                out[name] = self._value(model.model_fields[name], value, here)
        return out

    def _value(self, info: FieldInfo, value: Any, path: tuple[str | int, ...]) -> Any:
        model, many = _model_of(info.annotation)
        if model is None:
            if info.annotation == list[str] and isinstance(value, list):
                return [
                    "" if one is None else one for one in value
                ]  # as Go reads it; KubeEdge's chart writes such lists
            return value
        if many:
            if not isinstance(value, list):
                self._errors.append(f"{self._place(path)}: must be a list, not {_word(value)}")
                return []
            return [self.normalise(model, one, (*path, index)) for index, one in enumerate(value)]
        return self.normalise(model, value, path)

    def _unknown(self, path: tuple[str | int, ...], known: Iterable[str]) -> None:
        dotted = ".".join(str(one) for one in path)
        for what, of_cloud, of_edge in (
            ("a newer", cloud.IGNORED, edge.IGNORED),
            ("an older", cloud.FORMER, edge.FORMER),
        ):
            unused = {f"cloud.{one}".lower() for one in of_cloud} | {f"edge.{one}".lower() for one in of_edge}
            if dotted.lower() in unused:
                self._warnings.append(f"{self._place(path)}: belongs to {what} KubeEdge and is not used here")
                return
        near = difflib.get_close_matches(str(path[-1]), list(known), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self._errors.append(f"{self._place(path)}: unknown field{hint}")

    def _place(self, path: tuple[str | int, ...]) -> str:
        return _place(path, self._file, self._lines, self._root, self.origin)


def _place(path: tuple[str | int, ...], file: str, lines: Lines, root: tuple[str, ...], origin: str = "") -> str:
    shown = path[len(root) :] if path[: len(root)] == root else path
    dotted = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in shown).lstrip(".") or "(top)"
    probe = shown
    while probe and file:
        if line := lines.get(probe) or _line_ignoring_case(probe, lines):
            return f"{file}:{line}: {dotted}"
        probe = probe[:-1]
    return f"{file}: {dotted}" if file else f"{origin}{dotted}"


def _line_ignoring_case(path: tuple[str | int, ...], lines: Lines) -> int | None:
    wanted = tuple(str(one).lower() for one in path)
    return next((line for known, line in lines.items() if tuple(str(one).lower() for one in known) == wanted), None)


def _explain(error: Any, file: str, lines: Lines, root: tuple[str, ...]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    shown = f" (it is {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{_place(tuple(error['loc']), file, lines, root)}: {message}{shown}"


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        return next((one for one in map(_model_of, typing.get_args(annotation)) if one[0]), (None, False))
    if origin is list:
        model, _ = _model_of(typing.get_args(annotation)[0])
        return model, True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    return None, False


def _with_plugin_sections(site: type[EdgeSite], sections: Sequence[tuple[str, str, str]]) -> type[BaseModel]:
    model: type[BaseModel] = site
    for role, path, where in sections:
        module, _, name = where.partition(":")
        try:
            section = getattr(importlib.import_module(module), name)
        except Exception as exc:
            raise Problem([f"configuration section {path} of a plugin: {where}: {type(exc).__name__}: {exc}"]) from None
        model = _add_field(model, [role, *path.split(".")], section)
    return model


def _add_field(model: type[BaseModel], path: list[str], section: type[BaseModel]) -> type[BaseModel]:
    name, *rest = path
    if not rest:
        inner: type[BaseModel] = section
    elif name in model.model_fields:
        inner = _add_field(typing.cast("type[BaseModel]", model.model_fields[name].annotation), rest, section)
    else:
        inner = _add_field(create_model(name, __config__=ConfigDict(extra="forbid", frozen=True)), rest, section)
    info = FieldInfo(annotation=inner, default_factory=inner)
    return create_model(model.__name__, __base__=model, **{name: (inner, info)})  # type: ignore[call-overload, no-any-return]


def _nest(root: tuple[str, ...], values: Any) -> dict[str, Any]:
    for name in reversed(root):
        values = {name: values}
    return typing.cast("dict[str, Any]", values)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            _merge(base[name], value)
        else:
            base[name] = _copy(value) if isinstance(value, Mapping) else value


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _word(value: Any) -> str:
    return {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list"}.get(
        type(value), type(value).__name__
    )
