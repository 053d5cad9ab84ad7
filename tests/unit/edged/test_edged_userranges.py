"""Users of their own for pods: ranges, and what the runtime is told. What containers see is in tests/integration/edged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgesite.edge.edged.cri import convert
from edgesite.edge.edged.cri.tables import CRI
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.runtime import ContainerConfig, Mount
from edgesite.edge.edged.security import ContainerSecurity, Namespaces, UserRange
from edgesite.edge.edged.userranges import UserRanges
from edgesite.kube.protowire import decode, encode
from edgesite.net.real import RealThreads

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_ranges_of_users_are_each_pods_own_and_free_again(tmp_path: Path) -> None:
    paths, threads = Paths(tmp_path, tmp_path / "logs"), RealThreads()
    try:
        ranges = UserRanges(paths, threads)
        first, second = await ranges.give("u1"), await ranges.give("u2")
        assert (first, second) == (UserRange(65536, 65536), UserRange(131072, 65536))
        again = UserRanges(paths, threads)  # after a restart
        assert await again.give("u1") == first
        shutil.rmtree(paths.pod("u1"))
        assert await again.give("u3") == first
        (paths.pod("u2") / "userns").write_bytes(b'{"uidMappings":')  # cut off: it gets another
        assert await again.give("u2") == second
    finally:
        await threads.close()


def test_users_of_their_own_reach_the_runtime() -> None:
    security = ContainerSecurity(namespaces=Namespaces(users=UserRange(65536, 65536)))
    config = ContainerConfig(
        "main", "busybox", mounts=(Mount("/data", "/x"), Mount("/i", "", image="i")), security=security
    )
    sent = decode(CRI["ContainerConfig"], encode(CRI["ContainerConfig"], convert.container_config(config)))
    ids = [{"host_id": 65536, "length": 65536}]
    options = sent["linux"]["security_context"]["namespace_options"]["userns_options"]
    assert (options["uids"], options["gids"]) == (ids, ids)
    data, image = sent["mounts"]
    assert (data["uidMappings"], data["gidMappings"], image.get("uidMappings")) == (ids, ids, None)
