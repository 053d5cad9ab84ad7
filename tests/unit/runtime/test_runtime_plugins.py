"""Plugins: loaded by entry point, guarded at every hook, refused by name and reason."""

from __future__ import annotations

import types
from importlib.metadata import EntryPoint

import pytest

from edgesite.context import Section, Settings
from edgesite.hookspecs import Command, impl
from edgesite.runtime.plugins import PluginHost


def plugin(**functions: object) -> types.ModuleType:
    module = types.ModuleType("plugin")
    for name, function in functions.items():
        setattr(module, name, impl(function))
    return module


class Quiet:
    name = "quiet"
    roles = frozenset({"edge"})
    needs: frozenset[str] = frozenset()
    section = ""

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: object) -> None: ...


def test_joins_the_answers_of_all_plugins() -> None:
    host = PluginHost(())
    host.register(plugin(edgesite_modules=lambda settings: [Quiet]), "one")
    host.register(plugin(edgesite_modules=lambda: [Quiet]), "two")

    assert host.modules(Settings()) == [Quiet, Quiet]


def test_a_plugin_that_fails_to_import_is_refused_by_name_and_reason() -> None:
    host = PluginHost([EntryPoint("broken", "no.such.module", "edgesite.plugins")])

    assert "ModuleNotFoundError" in host.refused["broken"]
    assert "broken" not in host.loaded()


def test_a_hook_that_raises_leaves_the_others_alone() -> None:
    def fails(settings: Settings) -> list[type]:
        raise RuntimeError("no luck")
        yield

    host = PluginHost(())
    host.register(plugin(edgesite_modules=fails), "bad")
    host.register(plugin(edgesite_modules=lambda settings: [Quiet]), "good")

    assert host.modules(Settings()) == [Quiet]
    assert host.refused == {"bad": "RuntimeError: no luck"}


def test_what_is_no_module_is_refused_with_what_it_lacks() -> None:
    host = PluginHost(())
    host.register(plugin(edgesite_modules=lambda settings: [object]), "odd")

    assert host.modules(Settings()) == []
    assert "no module" in host.refused["odd"]


def test_a_misspelt_hook_is_an_error() -> None:
    host = PluginHost(())

    with pytest.raises(ValueError, match="edgesite_modulez"):
        host.register(plugin(edgesite_modulez=lambda settings: []), "typo")
    assert host.loaded() == {}


def test_a_vendor_is_asked_for_a_runtime_before_us() -> None:
    host = PluginHost(())
    host.register(plugin(edgesite_runtime=lambda name: (lambda ctx: "ours") if name == "cri" else None), "ours")
    host.register(plugin(edgesite_runtime=lambda name: (lambda ctx: "theirs") if name == "cri" else None), "vendor")

    maker = host.runtime("cri", Section({}))
    assert maker is not None
    assert maker(None) == "theirs"  # type: ignore[arg-type]
    assert host.runtime("other", Section({})) is None


def test_only_shows_what_one_plugin_brings() -> None:
    command = Command("greet", "", lambda parser: None, lambda arguments: 0)
    host = PluginHost(())
    host.register(plugin(edgesite_commands=lambda: [command]), "one")
    host.register(plugin(edgesite_modules=lambda settings: [Quiet]), "two")

    assert host.only("one").commands() == [command]
    assert host.only("one").modules(Settings()) == []
