"""The budgets of benchmarks/budgets.toml, measured on the installed program: an idle site with 10 pods, and each role alone."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks import idle  # noqa: E402 - the folder of benchmarks is no installed package

BUDGETS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "benchmarks" / "budgets.toml").read_text())
ROLES = ("site", "edge", "cloud")
SETTLE_S, IDLE_S = 14.0, 15.0  #: what edges hold is written down some ten seconds after it has settled


class Measured(NamedTuple):
    held: idle.Held
    spent: idle.Spent


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Measured]]:
    """All three side by side, so that the time that nothing happens passes once."""
    folder = tmp_path_factory.mktemp("budgets")
    with idle.site_with_pods(folder) as site, idle.two_roles(folder / "apart") as apart:
        processes = {"site": site, **apart}
        time.sleep(SETTLE_S)
        spent = idle.spent({name: program for name, (program, _) in processes.items()}, IDLE_S)
        yield {name: Measured(idle.held(*processes[name]), spent[name]) for name in ROLES}


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_over_its_budget(measured: dict[str, Measured], role: str) -> None:
    held, spent = measured[role]
    figures = held.figures() | spent.figures()
    over = [
        f"{name} of {role}: {figures[name]} (budget {most})"
        for name, most in BUDGETS[role].items()
        if figures[name] > most
    ]
    assert not over, "; ".join(over)


@pytest.mark.parametrize("role", ROLES)
def test_nothing_heavy_stays_loaded(measured: dict[str, Measured], role: str) -> None:
    never = BUDGETS["never"]["everywhere"] + BUDGETS["never"][role]
    names = measured[role].held.names
    loaded = [one for one in never if any(name == one or name.startswith(f"{one}.") for name in names)]
    assert not loaded, f"loaded in the process of {role}: {', '.join(loaded)}"


def test_every_figure_has_a_budget_for_every_role(measured: dict[str, Measured]) -> None:
    for role in ROLES:
        held, spent = measured[role]
        assert BUDGETS[role].keys() == held.figures().keys() - {"pss_mib"} | spent.figures().keys()
