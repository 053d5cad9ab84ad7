"""The whole site is killed again and again under write load: no acknowledged write is lost, no watch misses or repeats.

Each writer owns some ConfigMaps and knows of each the newest state that was acknowledged and, when a request ended without an answer,
the state that may or may not have been stored. Watchers resume from the last revision that they saw, over every crash.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from e2e_api import Api, call_on
from e2e_site import Site, eventually

ROUNDS = 8
WRITERS = 4
NAMES_EACH = 4
TARGET = "/api/v1/namespaces/default/configmaps"
GONE = None  #: the value of an object that does not exist


@dataclass(slots=True)
class Known:
    """What its writer knows of one object: its value by the last answer, and what may have become of it since."""

    acknowledged: int | None = GONE
    revision: int = 0
    unsure: set[int | None] = field(default_factory=set)

    def settle(self, value: int | None, revision: int = 0) -> None:
        self.acknowledged, self.revision = value, max(revision, self.revision)
        self.unsure = set()

    @property
    def possible(self) -> set[int | None]:
        return {self.acknowledged, *self.unsure}


class Writer(threading.Thread):
    """Creates, changes and deletes its objects until it is stopped."""

    def __init__(self, number: int, api: Callable[[], Api], stop: threading.Event) -> None:
        super().__init__(name=f"writer-{number}")
        self.known = {f"w{number}-{index}": Known() for index in range(NAMES_EACH)}
        self.written = 0
        self.problems: list[str] = []
        self._api, self._halt, self._random = api, stop, random.Random(number)
        self._next = 0

    def run(self) -> None:
        connection: http.client.HTTPSConnection | None = None
        while not self._halt.is_set():
            connection = connection or self._api().connect(5)
            name = self._random.choice(list(self.known))
            try:
                self._write(connection, name)
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = None
                self._halt.wait(0.02)
        if connection:
            connection.close()

    def _write(self, connection: http.client.HTTPSConnection, name: str) -> None:
        known = self.known[name]
        if known.unsure:  # find out first what became of the request without an answer
            self._look(connection, name, known)
            return
        self._next += 1
        value: int | None = self._next
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": str(value)}}
        if known.acknowledged is GONE:
            method, target, wanted = "POST", TARGET, 201
        elif self._random.random() < 0.2:
            method, target, wanted, value = "DELETE", f"{TARGET}/{name}", 200, GONE
        else:
            method, target, wanted = "PUT", f"{TARGET}/{name}", 200
        known.unsure.add(value)
        answer = call_on(connection, method, target, None if method == "DELETE" else body)
        if answer.status == wanted:
            revision = 0 if value is GONE else int(answer.obj["metadata"]["resourceVersion"])
            known.settle(value, revision)
            self.written += 1
        elif answer.status in (429, 503):  # it is just starting or stopping
            known.unsure.discard(value)
        else:
            self.problems.append(f"{method} {target}: {answer.status} {answer.body!r}, known {known}")
            known.unsure.discard(value)

    def _look(self, connection: http.client.HTTPSConnection, name: str, known: Known) -> None:
        answer = call_on(connection, "GET", f"{TARGET}/{name}")
        if answer.status in (429, 503):
            return
        found = int(answer.obj["data"]["n"]) if answer.status == 200 else GONE
        if found not in known.possible:
            self.problems.append(f"{name} holds {found}; acknowledged {known.acknowledged}, unsure {known.unsure}")
        known.settle(found, int(answer.obj["metadata"]["resourceVersion"]) if found is not GONE else 0)


class Watcher(threading.Thread):
    """Follows all ConfigMaps by revision and keeps what they hold, as a cache would."""

    def __init__(self, api: Callable[[], Api], stop: threading.Event) -> None:
        super().__init__(name="watcher")
        self.state: dict[str, tuple[int, str]] = {}
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.revision = 0
        self.relists = self.events = 0
        self.problems: list[str] = []
        self._api, self._halt = api, stop

    def run(self) -> None:
        while not self._halt.is_set():
            connection = self._api().connect(1.0)
            try:
                if not self.revision:
                    self._list(connection)
                self._follow(connection)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                self._halt.wait(0.02)
            finally:
                connection.close()

    def _list(self, connection: http.client.HTTPSConnection) -> None:
        answer = call_on(connection, "GET", TARGET)
        if answer.status != 200:
            raise OSError(f"no list yet: {answer.status}")
        self.state = {one["metadata"]["name"]: _version(one) for one in answer.obj["items"]}
        self.revision = int(answer.obj["metadata"]["resourceVersion"])
        self.relists += 1

    def _follow(self, connection: http.client.HTTPSConnection) -> None:
        connection.request("GET", f"{TARGET}?watch=true&resourceVersion={self.revision}&timeoutSeconds=5")
        with connection.getresponse() as response:
            if response.status == 410:
                self.revision = 0
                return
            if response.status != 200:
                raise OSError(f"no watch yet: {response.status}")
            while line := response.readline():
                if not line.endswith(b"\n"):
                    return  # cut off by the crash
                event = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"]["code"] != 410:
                        self.problems.append(f"watch from {self.revision}: {event}")
                    self.revision = 0
                    return
                self._take(event["type"], event["object"])

    def _take(self, kind: str, obj: dict[str, object]) -> None:
        name, (revision, value) = obj["metadata"]["name"], _version(obj)  # type: ignore[index]
        held = self.state.get(name)
        if revision <= self.revision:
            self.problems.append(f"{kind} {name} at {revision} came after {self.revision}")
        if (kind == "ADDED") is not (held is None):
            self.problems.append(f"{kind} {name} at {revision}, but held was {held}: something was missed")
        self.revision = revision
        self.events += 1
        if kind == "DELETED":
            self.state.pop(name, None)
        else:
            self.state[name] = (revision, value)
            self.seen[name].append(int(value or 0))


def _version(obj: dict[str, object]) -> tuple[int, str]:
    return int(obj["metadata"]["resourceVersion"]), (obj.get("data") or {}).get("n", "")  # type: ignore[index,attr-defined]


def test_nothing_acknowledged_is_lost(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.start()
    stop, held = threading.Event(), Api(site.kubeconfig)
    writers = [Writer(number, lambda: held, stop) for number in range(WRITERS)]
    watcher = Watcher(lambda: held, stop)
    threads: list[threading.Thread] = [*writers, watcher]
    for thread in threads:
        thread.start()
    try:
        for round_number in range(ROUNDS):
            enough = sum(one.written for one in writers) + random.Random(round_number).randint(1, 300)
            eventually(lambda n=enough: sum(one.written for one in writers) > n, "some writes")  # type: ignore[misc]
            site.kill()
            site.start()
        before = sum(one.written for one in writers)
        eventually(lambda: sum(one.written for one in writers) > before + 100, "some writes")
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    _judge(held, writers, watcher)


def _judge(api: Api, writers: list[Writer], watcher: Watcher) -> None:
    assert [problem for one in [*writers, watcher] for problem in one.problems] == []
    listed = api.get(TARGET).obj
    stored = {
        one["metadata"]["name"]: int(one["data"]["n"]) for one in listed["items"] if one["metadata"]["name"][0] == "w"
    }
    for writer in writers:
        for name, known in writer.known.items():
            assert stored.get(name, GONE) in known.possible, (name, known)
    last = threading.Event()
    final = Watcher(lambda: api, last)
    final.state, final.revision = dict(watcher.state), watcher.revision  # the rest of the events, from where it was
    final.start()
    try:
        wanted = {one["metadata"]["name"]: _version(one) for one in listed["items"]}
        eventually(lambda: final.state == wanted, "the watch holds what is stored")
    finally:
        last.set()
        final.join(10)
    assert final.problems == []
    assert watcher.events > ROUNDS * 50
    for name, values in watcher.seen.items():  # each writer counts up, so no value comes twice
        assert values == sorted(set(values)), name
