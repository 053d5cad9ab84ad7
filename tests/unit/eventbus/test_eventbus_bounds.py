"""What waits in EventBus while the cloud or an external broker is away stays within its bounds, whatever the sizes."""

from __future__ import annotations

import pytest

from edgesite.edge.eventbus import incoming, outbox
from edgesite.edge.eventbus.incoming import Incoming
from edgesite.edge.eventbus.outbox import Command, Outbox
from edgesite.runtime.bus import LocalBus
from edgesite.wire.message import MessageMaker

pytestmark = pytest.mark.anyio


async def test_large_publications_push_out_as_many_small_ones_as_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "BYTES", 10_000)
    waits = Incoming(LocalBus(), MessageMaker(lambda: 0.0, lambda bits: 1))
    waits.set_linked(False)
    for number in range(200):
        waits.put("app/user/x", b"%04d" % number)
    for _ in range(50):
        waits.put("app/user/x", b"x" * 2_000)
        assert waits._cloud.size <= 10_000 + 2_010
    assert waits.dropped == 250 - len(waits._cloud.waiting)


def test_the_outbox_counts_topics_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BYTES", 1_000)
    waits = Outbox(1_000)
    for _ in range(20):
        waits.put(Command("publish", "t" * 200, b"x"))
    assert (len(waits), waits.dropped) == (4, 16)
    waits.put(Command("subscribe", "s"))
    waits.drop_subscriptions()
    while waits.take() is not None:
        continue
    assert waits._size == 0
