"""Two ends over a network that drops, delays, duplicates, reorders and cuts: in the end they agree, and no state ever goes back."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgesite.wire import greeting
from edgesite.wire.delivery import ObjectRef, object_of
from edgesite.wire.delta import DELTA, Bases, NoDelta, apply_delta
from edgesite.wire.edge_session import EdgeLimits, EdgeSession
from edgesite.wire.events import Delivered, Greeted, Holdings, Opened, Received, Removed, Sent
from edgesite.wire.frames import Frame
from edgesite.wire.message import Message, MessageMaker, Operation, error_content
from edgesite.wire.newer import Held, Verdict, judge_delete, judge_update
from edgesite.wire.node_session import NodeSession

NAMES = ["a", "b", "c"]


class EdgeStore:
    """What an edge keeps on disk: objects by name, and the uids that have ended."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.objects: dict[str, dict[str, Any]] = {}  # by name: what deltas are made to
        self.ended: set[str] = set()
        self.seen: dict[str, int] = {}  # uid -> highest version that was ever stored

    def apply(self, message: Message) -> None:
        """Raises NoDelta."""
        if message.type == DELTA:
            name = message.resource.rpartition("/")[2]
            message = replace(message, content=apply_delta(self.objects.get(name), message.content))
        ref = object_of(message)
        assert ref is not None
        held = self.held.get(ref.name)
        if message.operation == Operation.DELETE:
            self.ended.add(ref.uid)
            if judge_delete(held, ref.uid) is Verdict.REMOVE:
                del self.held[ref.name]
                del self.objects[ref.name]
            return
        verdict = judge_update(held, ref.uid, ref.version, self.ended.__contains__)
        if verdict is not Verdict.IGNORE:
            assert ref.uid not in self.ended
            assert ref.version >= self.seen.get(ref.uid, 0)
            self.seen[ref.uid] = ref.version
            self.held[ref.name] = Held(ref.uid, ref.version)
            self.objects[ref.name] = message.object()

    def holdings(self) -> list[ObjectRef]:
        return [ObjectRef(one.uid, one.version, "pod", "default", name) for name, one in self.held.items()]


class World:
    """The API's objects, a cloud that records deliveries, a network, an edge."""

    def __init__(self, seed: int, own: bool) -> None:
        self.random = random.Random(seed)
        self.maker = MessageMaker(lambda: 0.0, self.random.getrandbits)
        self.now = 0.0
        self.own = own
        self.revision = 0
        self.objects: dict[str, tuple[str, int]] = {}  # name -> (uid, version)
        self.recorded: dict[str, tuple[int, str]] = {}  # uid -> (version, name)
        self.store = EdgeStore()
        self.bases = Bases(8)
        self.deltas = 0
        self.up: list[Frame] = []
        self.down: list[Frame] = []
        self.connect()

    def connect(self) -> None:
        """A new connection: what was under way is lost, disks and records are kept."""
        self.up, self.down = [], []
        self.cloud = NodeSession(
            "e1",
            self.maker,
            now=self.now,
            version_at_edge=lambda uid: self.recorded[uid][0] if uid in self.recorded else None,
            jitter=self.random.random,
            digest=lambda: greeting.digest_of((uid, version) for uid, (version, _) in self.recorded.items()),
            bases=self.bases,
        )
        self.edge = EdgeSession(self.maker, now=self.now, limits=EdgeLimits(rate=0.0))

    def message(self, name: str, uid: str, version: int, operation: str) -> Message:
        metadata: dict[str, Any] = {"name": name, "namespace": "default", "uid": uid}
        if operation != "delete":
            metadata["resourceVersion"] = str(version)
        return self.maker.make(
            "edgecontroller",
            "resource",
            operation,
            f"node/e1/default/pod/{name}",
            {"metadata": metadata, "spec": {"name": name, "padding": "x" * 20, "even": {"odd": version % 2}}},
            resource_version=str(version) if operation != "delete" else "",
        )

    def change(self, name: str, delete: bool) -> None:
        self.revision += 1
        if name not in self.objects and not delete:
            uid = f"uid-{self.revision}"
            self.objects[name] = (uid, self.revision)
            self.cloud.send(self.message(name, uid, self.revision, "insert"), self.now)
        elif name in self.objects and not delete:
            uid = self.objects[name][0]
            self.objects[name] = (uid, self.revision)
            self.cloud.send(self.message(name, uid, self.revision, "update"), self.now)
        elif name in self.objects:
            uid, _ = self.objects.pop(name)
            self.cloud.send(self.message(name, uid, self.revision, "delete"), self.now)

    def resync(self) -> None:
        live = {uid: (name, version) for name, (uid, version) in self.objects.items()}
        for uid, (name, version) in live.items():
            self.cloud.send(self.message(name, uid, version, "update"), self.now)
        for uid, (_, name) in list(self.recorded.items()):
            if uid not in live:
                self.cloud.send(self.message(name, uid, 0, "delete"), self.now)

    def step(self) -> None:
        self.drain()
        while (frame := self.cloud.take_frame(self.now)) is not None:
            self.drain()
            self.down.append(frame)
        while (frame := self.edge.take_frame(self.now)) is not None:
            if not self.own and b'"edgesite"' in frame.data:  # as a KubeEdge edge says it
                message = Message.from_json(frame.data)
                frame = Frame(replace(message, content="ping").to_json(), text=True)
            self.up.append(frame)

    def drain(self) -> None:
        while self.cloud.events:
            match self.cloud.events.popleft():
                case Delivered(ref):
                    if ref.version > self.recorded.get(ref.uid, (0, ""))[0] and ref.uid not in self.store.ended:
                        self.recorded[ref.uid] = (ref.version, ref.name)
                case Sent(ref):
                    self.recorded.setdefault(ref.uid, (0, ref.name))
                case Removed(ref):
                    self.recorded.pop(ref.uid, None)
                case Holdings(objects):
                    self.recorded = {one.uid: (one.version, one.name) for one in objects}
                case Opened():
                    self.resync()
        while self.edge.events:
            event = self.edge.events.popleft()
            if isinstance(event, Received):
                self.take(event.message)
            elif isinstance(event, Greeted):
                self.edge.tell_holdings(self.store.holdings())

    def take(self, message: Message) -> None:
        self.deltas += message.type == DELTA
        try:
            self.store.apply(message)
        except NoDelta:
            status = {"status": "Failure", "reason": "Conflict", "code": 409}
            self.edge.send(self.maker.error(message, error_content(status)), self.now)
        else:
            self.edge.send(self.maker.ack(message), self.now)

    def deliver(self, lane: list[Frame], at: int, *, keep: bool = False) -> None:
        if not lane:
            return
        frame = lane[at % len(lane)] if keep else lane.pop(at % len(lane))
        session = self.cloud if lane is self.up else self.edge
        session.receive_frame(frame.data, self.now, text=frame.text)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.cloud.handle_timer(self.now)
        self.edge.handle_timer(self.now)
        if self.cloud.closed or self.edge.closed:
            self.connect()

    def settle(self) -> None:
        """Without faults everything arrives."""
        self.connect()
        for _ in range(400):
            self.step()
            if not self.up and not self.down:
                if not self.cloud.backlog:
                    break
                self.pass_time(1.0)
            while self.up:
                self.deliver(self.up, 0)
            while self.down:
                self.deliver(self.down, 0)
        self.step()


_ACTIONS = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.sampled_from(["up", "down", "drop-up", "drop-down", "twice-down"]), st.integers(0, 7)),
    st.tuples(st.just("time"), st.sampled_from([0.1, 1.0, 5.0, 16.0])),
    st.tuples(st.just("cut")),
)


def run(world: World, action: tuple[Any, ...]) -> None:
    match action:
        case ("change", name, delete):
            world.change(name, delete)
        case ("up", at):
            world.deliver(world.up, at)
        case ("down", at):
            world.deliver(world.down, at)
        case ("twice-down", at):
            world.deliver(world.down, at, keep=True)
        case ("drop-up", at) if world.up:
            world.up.pop(at % len(world.up))
        case ("drop-down", at) if world.down:
            world.down.pop(at % len(world.down))
        case ("time", seconds):
            world.pass_time(seconds)
        case ("cut",):
            world.connect()


@settings(max_examples=300, deadline=None)
@given(st.lists(_ACTIONS, max_size=60), st.integers(0, 2**16), st.booleans())
def test_both_ends_agree_in_the_end(actions: list[tuple[Any, ...]], seed: int, own: bool) -> None:
    world = World(seed, own)
    for action in actions:
        world.step()
        run(world, action)
    world.settle()
    assert {name: (one.uid, one.version) for name, one in world.store.held.items()} == world.objects
    assert {uid: version for uid, (version, _) in world.recorded.items()} == dict(world.objects.values())


def storm(seed: int, own: bool, steps: int = 400) -> World:
    """A long run of random faults: enough for an old message to arrive after what replaced it."""
    world = World(seed, own)
    draw = random.Random(seed)
    kinds = ["change", "change", "up", "up", "up", "down", "down", "down", "twice-down", "time", "time", "drop-up"]
    for _ in range(steps):
        world.step()
        at = draw.randrange(8)
        match draw.choice(kinds) if draw.random() > 0.01 else "cut":
            case "change":
                run(world, ("change", draw.choice(NAMES), draw.random() < 0.3))
            case "time":
                run(world, ("time", draw.choice([0.1, 5.0])))
            case "cut":
                run(world, ("cut",))
            case kind:
                run(world, (kind, at))
    world.settle()
    return world


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_long_storms(seed: int, own: bool) -> None:
    world = storm(seed, own)
    assert {name: (one.uid, one.version) for name, one in world.store.held.items()} == world.objects
    for name, held in world.store.held.items():
        obj = world.store.objects[name]
        assert (obj["metadata"]["resourceVersion"], obj["spec"]["even"]["odd"]) == (str(held.version), held.version % 2)


def test_storms_bring_deltas() -> None:
    assert sum(storm(seed, own=True).deltas for seed in range(10)) > 20
