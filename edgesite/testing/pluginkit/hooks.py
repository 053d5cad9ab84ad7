"""What each hook of a plugin returns, checked without starting anything. AssertionErrors say what is wrong."""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgesite.context import Section, Settings
from edgesite.hookspecs import Admission, Command, ConfigSection
from edgesite.kube.resources import BUILTIN
from edgesite.kube.resourcetable import Resource
from edgesite.runtime.plugins import PluginHost, discover

if TYPE_CHECKING:
    from edgesite.context import Module, Role

__all__ = ["CHECKS", "all_settings", "builtin", "settings_with"]

_ROLE_NAMES: Final[tuple[Role, ...]] = ("cloud", "edge")
_ROLES: Final = ({"cloud"}, {"edge"}, {"cloud", "edge"})
_MODULE: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PATH: Final = re.compile(r"[a-zA-Z][\w]*(\.[a-zA-Z][\w]*)+")


@functools.cache
def builtin() -> PluginHost:
    """The plugins that come with edgesite."""
    return PluginHost(one for one in discover() if one.value.startswith("edgesite."))


def settings_with(host: PluginHost) -> dict[str, Any]:
    """All settings at their defaults, with the sections of this plugin."""
    from edgesite.runtime.config.validate import Request, validate

    sections = [(one.role, one.path, one.model) for one in host.config_sections()]
    values, _ = validate(Request("EdgeSite", sections=sections))
    return values


def all_settings(host: PluginHost) -> Settings:
    """The same, as hooks get it."""
    values = settings_with(host)
    api = Section(values["api"])
    return Settings(api=api, cloud=Section({**values["cloud"], "api": values["api"]}), edges=(Section(values["edge"]),))


def _sound(host: PluginHost) -> None:
    assert not host.refused, "; ".join(f"{name}: {why}" for name, why in host.refused.items())


def check_sections(host: PluginHost) -> None:
    from pydantic import BaseModel

    for one in host.config_sections():
        assert isinstance(one, ConfigSection), f"{one!r} is no ConfigSection"
        assert one.role in ("cloud", "edge"), f"{one.path}: the role is cloud or edge, not {one.role!r}"
        assert _PATH.fullmatch(one.path), f"{one.path!r}: a path has at least two parts (modules.NAME)"
        module, colon, name = one.model.partition(":")
        assert colon, f"{one.path}: write the model as package.module:Class"
        model = getattr(importlib.import_module(module), name)
        assert inspect.isclass(model), f"{one.model} is no class"
        assert issubclass(model, BaseModel), f"{one.model} is no pydantic model"
        assert model.model_config.get("extra") == "forbid", (
            f"{one.model}: set extra='forbid', so that misspelt settings are found"
        )
        for field, info in model.model_fields.items():
            assert not info.is_required(), (
                f"{one.model}.{field} has no default: a site without the section could not start"
            )
    _sound(host)
    settings_with(host)


def check_modules(host: PluginHost) -> None:
    settings = all_settings(host)
    threads = threading.active_count()
    modules = host.modules(settings)
    _sound(host)
    assert modules == host.modules(settings), "the hook returns others when it is called again"
    ours = {one.name for one in builtin().modules(settings)}
    own = {one.name for one in modules}
    assert len(own) == len(modules), "two modules have one name"
    for kind in modules:
        _check_module(kind, settings, ours, own)
    assert threading.active_count() == threads, (
        "a thread was started: making a module must have no effect, everything happens in run"
    )


def _check_module(kind: type[Module], settings: Settings, ours: set[str], own: set[str]) -> None:
    name = kind.name
    assert _MODULE.fullmatch(name), f"{name!r} is no name of a module: small letters, digits and '-'"
    assert name not in ours, f"{name} is a module of edgesite"
    assert isinstance(kind.roles, frozenset), f"{name}: roles are a frozenset of cloud, edge"
    assert kind.roles in _ROLES, f"{name}: roles are cloud, edge or both"
    assert isinstance(kind.needs, frozenset), f"{name}: needs is a frozenset of names"
    unknown = kind.needs - ours - own
    assert not unknown, f"{name} needs {', '.join(sorted(unknown))}, which neither it nor edgesite has"
    assert isinstance(kind.section, str), f"{name}: section is a dotted path, or ''"
    assert inspect.iscoroutinefunction(kind.run), f"{name}.run must be async"
    module = kind()
    for role in _ROLE_NAMES:
        section = settings.of(role)
        if role not in kind.roles or section is None:
            continue
        if kind.section:
            _at(section, kind.section, f"{name}: its section {kind.section} is none of role {role}")
        assert isinstance(module.enabled(section), bool), f"{name}.enabled must return a bool"


def _at(section: Section, path: str, why: str) -> None:
    found: Any = section
    for part in path.split("."):
        assert isinstance(found, Section), why
        assert part in found, why
        found = found[part]


def check_commands(host: PluginHost) -> None:
    from edgesite.cli.main import BUILT_IN

    taken = {*BUILT_IN, *(one.name for one in builtin().commands())}
    commands = host.commands()
    _sound(host)
    for one in commands:
        assert isinstance(one, Command), f"{one!r} is no Command"
        assert _MODULE.fullmatch(one.name), f"{one.name!r} is no name of a command"
        assert one.name not in taken, f"{one.name} is a command of edgesite"
        assert one.help, f"{one.name} has no help"
        parser = argparse.ArgumentParser(prog=one.name)
        one.configure(parser)
        parser.format_help()


def check_admission(host: PluginHost) -> None:
    admissions: list[Admission] = host.admission(all_settings(host))
    _sound(host)
    names = [one.name for one in admissions]
    assert len(set(names)) == len(names), "two admission plugins have one name"
    for one in admissions:
        assert isinstance(one.mutating, bool), f"{one.name}: mutating is True or False"
        for row in BUILTIN:
            for operation in ("CREATE", "UPDATE", "DELETE", "CONNECT"):
                answer = one.wants(row, operation, "")
                assert isinstance(answer, bool), f"{one.name}.wants must return a bool"


def check_resources(host: PluginHost) -> None:
    rows = host.resources()
    _sound(host)
    taken = {(one.group, one.version, one.plural) for one in BUILTIN}
    for one in rows:
        assert isinstance(one, Resource), f"{one!r} is no Resource"
        assert (one.group, one.version, one.plural) not in taken, f"{one.plural}.{one.group} is a kind of edgesite"
        assert "." in one.group, f"{one.kind}: groups of vendors are domain names, not {one.group!r}"


def check_metaserver(host: PluginHost) -> None:
    from edgesite.kube.requestinfo import parse_path, request_info

    edge = all_settings(host).edges[0]
    extensions = host.metaserver(edge)
    _sound(host)
    taken = {(one.group, one.version, one.plural) for one in BUILTIN}
    names = [one.name for one in extensions]
    assert len(set(names)) == len(names), "two extensions of MetaServer have one name"
    for one in extensions:
        for row in one.resources():
            assert isinstance(row, Resource), f"{one.name}: {row!r} is no Resource"
            assert (row.group, row.version, row.plural) not in taken, f"{row.plural}.{row.group} is a kind of edgesite"
            assert "." in row.group, f"{row.kind}: groups of vendors are domain names, not {row.group!r}"
        assert inspect.iscoroutinefunction(one.serve), f"{one.name}.serve must be async"
        info = request_info("GET", parse_path("/api/v1/namespaces/default/pods/web"), watch=False)
        assert one.admit(info, None) is None, f"{one.name}.admit raises ApiError, or returns nothing"  # type: ignore[func-returns-value]


CHECKS: Final[Mapping[str, Callable[[PluginHost], None]]] = {
    "configuration sections have models with defaults": check_sections,
    "modules say what they are and need": check_modules,
    "commands have names of their own": check_commands,
    "admission answers for every kind": check_admission,
    "kinds are in groups of their own": check_resources,
    "the API of nodes is added to, and not replaced": check_metaserver,
}
