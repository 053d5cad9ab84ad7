"""Sites for end-to-end tests: one shared by the tests that only use the API, others made where a test needs its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from e2e_bundle import frozen_bundle
from e2e_packages import Packages, build
from e2e_site import Kubectl, Site

from edgesite.testing.containerd import Containerd, containerd


@pytest.fixture(scope="session")
def daemon() -> Iterator[Containerd]:
    with containerd() as started:
        yield started


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The installed folder of the frozen program."""
    return frozen_bundle()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Packages]:
    """Two versions of RPMs and debs; half a gigabyte."""
    folder = tmp_path_factory.mktemp("packages")
    yield build(folder, bundle)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running site with the process runtime; tests use namespaces of their own."""
    with closing(Site(tmp_path_factory.mktemp("site"))) as site:
        site.start()
        yield site


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes sites that the test starts, stops and kills as it likes."""
    with ExitStack() as stack:

        def make(*arguments: str, runtime: str = "process", node: str = "node1") -> Site:
            folder = tmp_path / node
            folder.mkdir()
            return stack.enter_context(closing(Site(folder, *arguments, runtime=runtime, node=node)))

        yield make


@pytest.fixture(params=["1.20", "1.32"])
def kubectl(request: pytest.FixtureRequest, shared_site: Site) -> Kubectl:
    """kubectl of both versions, against the shared site."""
    return shared_site.kubectl(request.param)


@pytest.fixture
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, gone afterwards with all that is in it."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**9}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def own(kubectl: Kubectl, namespace: str) -> Kubectl:
    """kubectl of both versions, in the test's own namespace."""
    return kubectl.within(namespace)
