import anyio
import pytest

from edgesite.kube.errors import ApiError, expired, unavailable
from edgesite.kube.resources import Resource
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio
THINGS = Resource("", "v1", "ConfigMap", "configmaps")


def thing(name, **labels):
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "d", "labels": labels}}


class Log:
    def __init__(self, informer):
        self.told = []
        self.subscription = informer.add_handler(
            lambda obj: self.told.append(("added", obj["metadata"]["name"])),
            lambda old, new: self.told.append(("updated", new["metadata"]["name"])),
            lambda obj: self.told.append(("deleted", obj["metadata"]["name"])),
        )


async def grow(client, *names):
    for name in names:
        await client.create(THINGS, thing(name))


async def test_lists_in_pages_then_follows_changes(client, informers, api):
    await grow(client, *(f"t{number:04d}" for number in range(1100)))
    informer = informers.of(THINGS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        assert len(informer) == 1100
        assert len([target for _, target in api.requests if "limit=500" in target]) == 3
        log = Log(informer)
        log.told.clear()
        await client.create(THINGS, thing("new"))
        await client.patch(THINGS, "new", {"data": {"a": "b"}}, "d")
        await client.delete(THINGS, "t0000", "d")
        await settle()
        assert log.told == [("added", "new"), ("updated", "new"), ("deleted", "t0000")]
        assert informer.get("new", "d")["data"] == {"a": "b"}
        assert informer.get("t0000", "d") is None
        tasks.cancel_scope.cancel()
    assert api.watches == 0


async def test_resumes_from_the_last_version_when_the_watch_breaks(client, informers, api):
    informer = informers.of(THINGS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        log = Log(informer)
        await settle()
        api.drop_watches(ConnectionResetError("cut"))
        await grow(client, "a", "b")
        await anyio.sleep(5)
        assert log.told == [("added", "a"), ("added", "b")]
        assert len([one for one in api.requests if one[1] == "/api/v1/configmaps?limit=500"]) == 1
        tasks.cancel_scope.cancel()


async def test_lists_again_after_compaction_and_tells_the_difference(client, informers, api):
    await grow(client, "kept", "gone", "changed")
    informer = informers.of(THINGS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        log = Log(informer)
        log.told.clear()
        await settle()
        api.drop_watches()
        await client.delete(THINGS, "gone", "d")
        await client.patch(THINGS, "changed", {"data": {"x": "y"}}, "d")
        await grow(client, "fresh")
        api.compact()
        await anyio.sleep(60)
        assert sorted(log.told) == [("added", "fresh"), ("deleted", "gone"), ("updated", "changed")]
        tasks.cancel_scope.cancel()


async def test_an_object_made_anew_under_the_same_name_is_deleted_and_added(client, informers, api):
    await grow(client, "a")
    informer = informers.of(THINGS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        log = Log(informer)
        log.told.clear()
        await settle()
        api.drop_watches()
        await client.delete(THINGS, "a", "d")
        await grow(client, "a")
        api.compact()
        await anyio.sleep(60)
        assert log.told == [("deleted", "a"), ("added", "a")]
        tasks.cancel_scope.cancel()


async def test_failing_lists_are_retried_with_growing_pauses(informers, api, clock):
    api.fail(*(unavailable("down") for _ in range(4)), OSError("refused"))
    informer = informers.of(THINGS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        assert 0.8 * 31 <= clock.monotonic() <= 1.6 * 31 + 5
        tasks.cancel_scope.cancel()


async def test_a_list_whose_snapshot_expires_half_way_is_taken_whole(client, informers, api):
    await grow(client, *(f"t{number:04d}" for number in range(600)))
    informer = informers.of(THINGS)
    first = api._list

    def second_page_is_gone(path, query):
        if query.get("continue"):
            raise expired("the provided continue parameter is too old")
        return first(path, query)

    api._list = second_page_is_gone
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        assert len(informer) == 600
        tasks.cancel_scope.cancel()


async def test_a_silent_dead_watch_is_given_up(informers, api, clock):
    informer = informers.of(THINGS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        await settle()
        api._watchers.clear()  # the server forgot the watch, the connection hangs
        await anyio.sleep(700)
        assert api.watches == 1
        tasks.cancel_scope.cancel()


async def test_indexes_follow_changes(client, informers):
    await client.create(THINGS, thing("a", app="x"))
    informer = informers.of(THINGS)
    informer.add_index("app", lambda obj: [obj["metadata"]["labels"].get("app", "")])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        await client.create(THINGS, thing("b", app="x"))
        await client.patch(THINGS, "a", {"metadata": {"labels": {"app": "y"}}}, "d")
        await settle()
        assert [one["metadata"]["name"] for one in informer.by_index("app", "x")] == ["b"]
        assert [one["metadata"]["name"] for one in informer.by_index("app", "y")] == ["a"]
        await client.delete(THINGS, "b", "d")
        await settle()
        assert informer.by_index("app", "x") == []
        assert list(informer.index_values("app")) == ["y"]
        tasks.cancel_scope.cancel()


async def test_a_handler_that_raises_stops_nobody_and_a_closed_one_is_silent(client, informers, caplog):
    informer = informers.of(THINGS)
    informer.add_handler(lambda obj: 1 / 0)
    log, closed = Log(informer), Log(informer)
    closed.subscription.close()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        await grow(client, "a")
        await settle()
        tasks.cancel_scope.cancel()
    assert log.told == [("added", "a")]
    assert closed.told == []
    assert "a handler of configmaps failed" in caplog.text


async def test_who_asks_for_the_same_gets_the_same_and_managed_fields_are_dropped(client, informers):
    obj = thing("a")
    obj["metadata"]["managedFields"] = [{"manager": "x"}]
    await client.create(THINGS, obj)
    informer = informers.of(THINGS)
    assert informers.of(THINGS) is informer
    assert informers.of(THINGS, metadata_only=True) is informer
    assert informers.of(THINGS, namespace="d") is not informer
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informers.run)
        await informer.wait_synced()
        assert "managedFields" not in informer.get("a", "d")["metadata"]
        tasks.cancel_scope.cancel()


async def test_watch_events_cut_anywhere_are_put_together(client, api):
    await grow(client, "a")
    async with client.watch(THINGS, "d", resource_version="100") as events:
        [whole] = api._watchers[0].events
        api._watchers[0].events.clear()
        for at in range(len(whole)):
            api._watchers[0].put(whole[at : at + 1])
        api._watchers[0].put(whole[:-1])
        api._watchers[0].put(None)
        seen = [event async for event in events]
    assert [(one.type, one.object["metadata"]["name"]) for one in seen] == [("ADDED", "a")] * 2


async def test_an_error_event_is_raised(client, api):
    async with client.watch(THINGS) as events:
        api._watchers[0].put(b'{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"too old"}}\n')
        with pytest.raises(ApiError) as caught:
            await anext(events)
    assert caught.value.code == 410
    assert api.watches == 0


@pytest.mark.parametrize("bad", [b"nonsense\n", b"[1]\n", b'{"type":"ADDED"}\n'])
async def test_what_is_no_event_is_an_api_error(client, api, bad):
    async with client.watch(THINGS) as events:
        api._watchers[0].put(bad)
        with pytest.raises(ApiError):
            await anext(events)
