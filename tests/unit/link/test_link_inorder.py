"""Reports about one object keep their order, those about others do not wait for them."""

from __future__ import annotations

import anyio
import pytest

from edgesite.cloud.edgecontroller.inorder import InOrder
from edgesite.wire.message import Message

pytestmark = pytest.mark.anyio


def report(name: str, pod: str) -> Message:
    return Message(name, 0, "edged", "meta", "patch", f"node/edge-1/default/podpatch/{pod}", "{}")


async def test_one_object_in_order_and_others_beside() -> None:
    done: list[str] = []
    hold = anyio.Event()

    async def work(message: Message) -> None:
        if message.msg_id == "a1":
            await hold.wait()
        done.append(message.msg_id)

    async with anyio.create_task_group() as tasks:
        requests = InOrder(tasks, work, 4)
        for name, pod in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")):
            await requests.add(report(name, pod))
        await anyio.wait_all_tasks_blocked()
        assert done == ["b1"]
        await requests.add(report("c1", "c"))
        with anyio.move_on_after(0.01) as full:  # a1 to a3 and c1, if that is not done yet
            for number in range(4):
                await requests.add(report(f"a{number + 4}", "a"))
        assert full.cancelled_caught, "what waits is bounded"
        hold.set()
        await anyio.wait_all_tasks_blocked()
        assert [one for one in done if one[0] == "a"][:3] == ["a1", "a2", "a3"]
        assert not requests._waiting
