"""The conformance kit for plugins: what the host expects of them, as checks that a vendor's CI runs.

    edgesite plugins check NAME                            in a shell; NAME is the entry point, or package.module[:object]
    pytest -p edgesite.testing.pluginkit.pytest_plugin --edgesite-plugin NAME       the same as tests, one for each check
    from edgesite.testing.pluginkit import examine         in tests of one's own

The static checks call each hook twice and look at what it returns. The life check runs the plugin's modules in a whole site, with a
pod runtime that only pretends: each must get ready, stop when it is told to, start again, and leave nothing behind.

Errors  None leave `examine`: what a plugin does wrong is a `Result` with the problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesite.runtime.plugins import PluginHost

__all__ = ["Result", "examine"]


@dataclass(frozen=True, slots=True)
class Result:
    """One check; ``problem`` is "" if it passed."""

    name: str
    problem: str = ""


def examine(target: str, *, life: bool = True) -> Iterator[Result]:
    """Check a plugin that can be imported here. Without ``life`` nothing is started. Blocking, some seconds with it."""
    from edgesite.testing.pluginkit.loading import load

    loaded: list[PluginHost] = []
    yield _result("it loads, and knows only hooks that there are", lambda: loaded.append(load(target)))
    if not loaded:
        return
    from edgesite.testing.pluginkit import hooks

    for name, check in hooks.CHECKS.items():
        yield _result(name, check, loaded[0])
    if life:
        from edgesite.testing.pluginkit.life import check_life

        yield _result("its modules get ready, stop, start again and leave nothing behind", check_life, loaded[0])


def _result(name: str, check: Callable[..., Any], *arguments: Any) -> Result:
    try:
        check(*arguments)
    except Exception as exc:  # a plugin may raise anything
        return Result(name, str(exc) if isinstance(exc, AssertionError) else f"{type(exc).__name__}: {exc}")
    return Result(name)
