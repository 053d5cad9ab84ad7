"""A controller never reads behind its own writes."""

import pytest

from edgesite.client import ObjectKey
from edgesite.controlplane.ownwrites import OwnWrites

KEY = ObjectKey("default", "web")


class Cache:
    def __init__(self):
        self.shown = None

    def by_key(self, key):
        assert key == KEY
        return self.shown


def thing(version, uid="a"):
    return {"metadata": {"namespace": "default", "name": "web", "uid": uid, "resourceVersion": version}}


@pytest.fixture
def cache():
    return Cache()


@pytest.fixture
def own(cache):
    return OwnWrites(cache)


def test_the_cache_is_read_where_nothing_was_written(cache, own):
    assert own.newest(KEY) is None
    cache.shown = thing("5")
    assert own.newest(KEY) is cache.shown


def test_a_write_is_read_until_the_cache_has_it(cache, own):
    cache.shown = thing("9")
    written = own.wrote(thing("10"))
    assert own.newest(KEY) is written
    cache.shown = thing("10")
    assert own.newest(KEY) is cache.shown
    cache.shown = thing("9")  # listed again by a server that is behind: the write is no longer known
    assert own.newest(KEY) is cache.shown


def test_what_another_wrote_later_wins(cache, own):
    own.wrote(thing("10"))
    cache.shown = thing("11")
    assert own.newest(KEY) is cache.shown


def test_an_object_that_is_gone_is_not_brought_back(cache, own):
    own.wrote(thing("10"))
    assert own.newest(KEY) is None
    cache.shown = thing("4", uid="b")
    assert own.newest(KEY) is cache.shown


def test_another_object_of_the_same_name_wins_whatever_its_version(cache, own):
    own.wrote(thing("10"))
    cache.shown = thing("4", uid="b")
    assert own.newest(KEY) is cache.shown


def test_versions_that_cannot_be_compared_leave_the_cache_as_it_is(cache, own):
    cache.shown = thing("x7")
    own.wrote(thing("x8"))
    assert own.newest(KEY) is cache.shown
