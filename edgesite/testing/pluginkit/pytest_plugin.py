"""The conformance kit as tests: ``pytest -p edgesite.testing.pluginkit.pytest_plugin --edgesite-plugin NAME``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from edgesite.testing.pluginkit import Result, examine

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pytest_addoption", "pytest_collection_modifyitems"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("edgesite")
    group.addoption(
        "--edgesite-plugin", action="append", default=[], metavar="NAME", help="check this plugin; may be repeated"
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    for target in config.getoption("--edgesite-plugin"):
        items.extend(_Target.from_parent(session, name=target).collect())


class _Target(pytest.Collector):
    def collect(self) -> Iterator[pytest.Item]:
        for result in examine(self.name):
            yield _Check.from_parent(self, name=result.name, result=result)


class _Check(pytest.Item):
    def __init__(self, *, result: Result, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self._result = result

    def runtest(self) -> None:
        assert not self._result.problem, self._result.problem

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.parent.name if self.parent else ''}: {self.name}"
