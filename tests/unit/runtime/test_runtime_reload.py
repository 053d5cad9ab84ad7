"""Reading the configuration again: what modules take over, what waits for a restart, what is refused; and that the documents say so."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgesite.context import Section, Settings
from edgesite.runtime.config.load import BadConfig
from edgesite.runtime.config.site import EdgeSite
from edgesite.runtime.live import Taken, hand_over
from edgesite.runtime.plugins import PluginHost, discover
from edgesite.runtime.reload import Configuration

SERVICES = Path(__file__).resolve().parents[3] / "docs" / "services.md"
FIRST = {"modules": {"hub": {"limit": 1, "port": 10, "eviction": {"memory.available": "100Mi"}}, "other": {"limit": 1}}}


class Hub:
    name, section = "hub", "modules.hub"
    reloads = frozenset({"limit", "eviction"})

    def __init__(self) -> None:
        self.got: list[Section] = []

    def reload(self, config: Section) -> None:
        if config.limit < 0:
            raise ValueError("the limit is below 0")
        self.got.append(config)


def site(**hub: Any) -> dict[str, Any]:
    return {"modules": {"hub": FIRST["modules"]["hub"] | hub, "other": {"limit": 1}}}


def hand(module: Any, values: Mapping[str, Any]) -> tuple[Section, Taken]:
    return hand_over([module], Section(FIRST), values)


def test_a_module_gets_what_it_takes_and_the_rest_as_it_was_at_the_start() -> None:
    hub = Hub()
    settings, taken = hand(hub, site(limit=2, port=11, eviction={"memory.available": "5%"}))
    (got,) = hub.got
    assert (got.limit, got.port, got.eviction["memory.available"]) == (2, 10, "5%")
    assert settings.modules.hub == got  # what it gets when it is started anew
    assert taken.changed == (("modules", "hub", "eviction", "memory.available"), ("modules", "hub", "limit"))
    assert not taken.covers(("modules", "hub", "port"))


def test_a_member_that_is_gone_is_gone() -> None:
    settings, taken = hand(Hub(), site(eviction={}))
    assert settings.modules.hub.eviction.plain() == {}
    assert taken.changed == (("modules", "hub", "eviction", "memory.available"),)


def test_who_refuses_keeps_everything_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Other(Hub):
        name, section, reloads = "other", "modules.other", frozenset({"limit"})

    hub, other = Hub(), Other()
    values = site(limit=-1, eviction={}) | {}
    values["modules"]["other"] = {"limit": 5}
    settings, taken = hand_over([hub, other], Section(FIRST), values)
    assert (hub.got, [one.limit for one in other.got]) == ([], [5])
    assert settings.modules.hub.plain() == FIRST["modules"]["hub"]
    assert taken.refused == ("hub: the limit is below 0",)
    assert not taken.covers(("modules", "hub", "limit"))


def test_it_is_called_though_nothing_changed_for_files_may_have() -> None:
    hub = Hub()
    _, taken = hand(hub, FIRST)
    assert (len(hub.got), taken.changed) == (1, ())


class Threads:
    async def run(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


class Reading:
    """A configuration file that is read again and again."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.role = SimpleNamespace(role="cloud", settings=Section({**FIRST, "api": {"ttl": 1}}), reload=self._reload)
        self.next: Mapping[str, Any] = self.values()
        self.configuration = Configuration(self.values(), self._read)

    def values(self, **hub: Any) -> dict[str, Any]:
        levels: dict[str, Any] = {"logging": {"verbosity": None, "levels": {}}}
        return {"api": {"ttl": 1}, "cloud": {**site(**hub), **levels}, "edge": {**levels}}

    def _read(self) -> tuple[Mapping[str, Any], list[str]]:
        if not self.next:
            raise BadConfig(["kind: [ is no YAML"])
        return self.next, []

    def _reload(self, values: Mapping[str, Any]) -> Taken:
        self.role.settings, taken = hand_over([self.hub], self.role.settings, values)
        return taken

    async def again(self, values: Mapping[str, Any]) -> None:
        self.next = values
        await self.configuration.reload(Threads(), [self.role])  # type: ignore[arg-type, list-item]


@pytest.mark.anyio
async def test_the_log_names_what_was_taken_and_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reading = Reading()
    await reading.again(reading.values(limit=2, port=11))
    assert "taken over: cloud.modules.hub.limit" in caplog.text
    assert "take effect at the next start: cloud.modules.hub.port\n" in caplog.text
    caplog.clear()
    await reading.again(reading.values(limit=2))
    assert "taken over" not in caplog.text  # it has it already
    assert "nothing waits for a restart" in caplog.text


@pytest.mark.anyio
async def test_a_file_that_is_not_valid_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    reading = Reading()
    await reading.again({})
    assert "the configuration is kept as it was: kind: [ is no YAML" in caplog.text
    assert reading.hub.got == []


@pytest.mark.anyio
async def test_what_a_module_refuses_waits_for_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    reading = Reading()
    await reading.again(reading.values(limit=-1))
    assert "the former settings hold on: hub: the limit is below 0" in caplog.text
    assert "take effect at the next start: cloud.modules.hub.limit\n" in caplog.text


def built_in() -> Iterable[Any]:
    values = EdgeSite().model_dump()
    values["edge"]["modules"]["metaManager"]["metaServer"]["enable"] = True  # off by default, and then not offered
    for enable in (True, False):
        api = Section({**values["api"], "enable": enable})
        cloud = Section({**values["cloud"], "api": values["api"]})
        yield from PluginHost(discover()).modules(Settings(api=api, cloud=cloud, edges=[Section(values["edge"])]))


def members() -> set[str]:
    """Of the kinds CloudCore and EdgeCore; those of the API with ``api`` before."""
    return {f"{one.section}.{member}" for one in built_in() for member in getattr(one, "reloads", ())}


def test_every_member_that_is_taken_over_is_one_of_the_configuration() -> None:
    values = EdgeSite().model_dump()
    roots = ({**values["cloud"], "api": values["api"]}, values["edge"])
    for path in members():
        found: list[Any] = list(roots)
        for name in path.split("."):
            found = [one[name] for one in found if isinstance(one, Mapping) and name in one]
        assert found, path


def test_the_documents_list_what_is_taken_over() -> None:
    text = SERVICES.read_text()
    listed = set()
    for line in text.partition("### Reload")[2].partition("\n### ")[0].splitlines():
        if line.startswith("| `") and line.count("|") == 4:
            section, names = (one.strip().replace("`", "") for one in line.split("|")[1:3])
            listed |= {f"{section}.{name.strip()}" for name in names.split(",")}
    assert listed == members()
