"""Run worlds from seeds: ``python -m edgesite.testing.simulator --seeds 200``.

    site      cloud and edges on machines of their own      together  the whole site in one process
    link      the same, with books kept of every message    offline   a node without its cloud
    restore   the cloud is restored from a backup           api       the cloud role alone
    store     the store alone                               metaserver  programs on a node, and their API

Every tenth seed is run twice, in different processes, and must give the same trace. Exit codes: 0 all well, 1 a failure, 2 bad usage.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from edgesite.testing.simulator.world import Outcome, run

PACKAGE: Final = "edgesite.testing.simulator.worlds"
#: World -> its share of the seeds.
WORLDS: Final = {
    "site": 0.3,
    "link": 0.2,
    "restore": 0.1,
    "together": 0.1,
    "offline": 0.05,
    "api": 0.1,
    "metaserver": 0.15,
    "devices": 0.1,
    "store": 0.15,
}
REPLAY_EVERY: Final = 10


def main() -> int:
    """Parse the command line and run. Returns the exit code."""
    options = _parse()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of strings must have one order in all runs
        os.execve(
            sys.executable,
            [sys.executable, "-m", "edgesite.testing.simulator", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    worlds = [options.world] if options.world else list(WORLDS)
    if options.seed is not None:
        return max([_show(world, options.seed, options.verbose) for world in worlds])
    shares = {world: math.ceil(options.seeds * (1.0 if options.world else WORLDS[world])) for world in worlds}
    return max([_run_many(world, range(options.first, options.first + n), options.jobs) for world, n in shares.items()])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m edgesite.testing.simulator", description="Simulate sites under seeded faults."
    )
    parser.add_argument("--world", choices=sorted(WORLDS), help="only this world (default: all)")
    parser.add_argument(
        "--seeds",
        type=int,
        default=200,
        metavar="N",
        help="how many seeds, shared out among the worlds (default: 200)",
    )
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default: 0)")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per CPU)")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the trace of --seed")
    return parser.parse_args()


def play(world: str, seed: int, echo: bool = False) -> Outcome:
    """Run one seed of one world."""
    outcome = run(importlib.import_module(f"{PACKAGE}.{world}").scenario, seed, echo=echo)
    if not gc.get_freeze_count():
        gc.freeze()  # what the first world has imported stays: the collection after each world need not look at it
    return outcome


def _show(world: str, seed: int, echo: bool) -> int:
    outcome = play(world, seed, echo)
    if outcome.failure is not None and not echo:
        print("\n".join(outcome.last_lines))
    if outcome.failure is not None:
        print(outcome.failure)
    print(
        f"{world} seed={seed} {outcome.digest} virtual={outcome.virtual_s:.1f} s steps={outcome.steps} {_tally(outcome.counts)}"
    )
    return 0 if outcome.failure is None else 1


def _run_many(world: str, seeds: range, jobs: int) -> int:
    started = time.monotonic()
    tally: Counter[str] = Counter()
    virtual_s, done, failed = 0.0, 0, 0
    for outcome, again in _outcomes(world, seeds, jobs):
        done += 1
        virtual_s += outcome.virtual_s
        tally.update(outcome.counts)
        failure = outcome.failure
        if again is not None and again.digest != outcome.digest and failure is None:
            failure = f"a second run differs: {outcome.digest} and {again.digest}"
        if failure is not None:
            failed += 1
            _report(world, outcome, failure)
    took = time.monotonic() - started
    print(f"{world}: seeds={done} failed={failed} virtual={virtual_s:.0f} s real={took:.1f} s {_tally(tally)}")
    return 1 if failed else 0


def _outcomes(world: str, seeds: range, jobs: int) -> Iterator[tuple[Outcome, Outcome | None]]:
    if jobs == 1:
        for seed in seeds:
            yield play(world, seed), play(world, seed) if seed % REPLAY_EVERY == 0 else None
        return
    with ProcessPoolExecutor(jobs) as pool:
        first = [pool.submit(play, world, seed) for seed in seeds]
        again = {seed: pool.submit(play, world, seed) for seed in seeds if seed % REPLAY_EVERY == 0}
        for seed, future in zip(seeds, first, strict=True):
            yield future.result(), again[seed].result() if seed in again else None


def _report(world: str, outcome: Outcome, failure: str) -> None:
    print(f"{world} seed={outcome.seed} FAILED at {outcome.virtual_s:.3f} s")
    print("\n".join(outcome.last_lines[-20:]))
    print(failure.strip().rsplit("\n", 1)[-1])
    print(f"replay: python -m edgesite.testing.simulator --world {world} --seed {outcome.seed} -v")


def _tally(counts: dict[str, int]) -> str:
    return " ".join(f"{name.replace(' ', '-')}={number}" for name, number in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
