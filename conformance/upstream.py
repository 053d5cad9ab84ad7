"""Kubernetes' own end-to-end tests against a site of ours: `e2e.test` with a focus, on `edgesite up` with containerd.

    python -m conformance.upstream --e2e e2e.test --agnhost agnhost [--ginkgo ginkgo] [--focus RE] [--out FOLDER]

The programs come from upstream's source, see README.md here; nothing is downloaded. Needs root, and what
`edgesite.testing.containerd` needs. All images are made here and pulled from a registry on loopback. Prints a line for each test
that failed, with its reason, and counts; ``result.txt`` in the output folder has every test. Ends with 1 if a test failed.

Units   Seconds.
Source  Kubernetes v1.20, test/e2e/framework/test_context.go (options of e2e.test), test/utils/image (KUBE_TEST_REPO_LIST).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import anyio

from conformance.upstream_images import AUTHENTICATED, e2e_images, repositories
from edgesite.kube import json
from edgesite.net.http import HttpServer
from edgesite.net.real import RealNet
from edgesite.testing.containerd import Containerd, containerd
from edgesite.testing.registry import Registry

_CREDENTIALS: Final = ("puller", "secret")
_START_S: Final = 60.0
_END_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One test: ``message`` is empty where it passed."""

    name: str
    seconds: float
    passed: bool
    message: str = ""


def main() -> int:
    arguments = _arguments()
    out: Path = arguments.out or Path(tempfile.mkdtemp(prefix="edgesite-conformance-"))
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("junit_*.xml"):
        old.unlink()
    for ending in (signal.SIGINT, signal.SIGTERM):  # also in the background all is to be taken down
        signal.signal(ending, signal.default_int_handler)
    with ExitStack() as stack:
        daemon = stack.enter_context(containerd())
        kubeconfig = stack.enter_context(_site(daemon, out))
        anyio.run(_test, arguments, kubeconfig, out)
    return _report(out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance.upstream", description="Kubernetes' end-to-end tests on a site.")
    parser.add_argument("--e2e", type=Path, required=True, help="upstream's e2e.test")
    parser.add_argument("--agnhost", type=Path, required=True, help="upstream's agnhost, linked statically")
    parser.add_argument("--nonewprivs", type=Path, help="upstream's nnp, linked statically")
    parser.add_argument("--ginkgo", type=Path, help="ginkgo's program of the same source: tests run side by side")
    parser.add_argument("--kubectl", default=shutil.which("kubectl") or "kubectl", help="kubectl that tests run")
    parser.add_argument("--focus", default=r"\[NodeConformance\]", help="regular expression of test names")
    parser.add_argument("--skip", default="", help="regular expression of test names to leave out")
    parser.add_argument("--parallel", type=int, default=4, help="tests at a time (with --ginkgo)")
    parser.add_argument("--out", type=Path, help="folder for logs and results")
    return parser.parse_args()


@contextmanager
def _site(daemon: Containerd, out: Path) -> Iterator[Path]:
    """Run a site over that runtime; gives its kubeconfig. Raises RuntimeError when it does not come up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = daemon.root / "site"
    kubelet = "edge.modules.edged.tailoredKubeletConfig"
    no_ports = ("--set", f"{kubelet}.readOnlyPort=0", "--set", f"{kubelet}.healthzPort=0")
    with (out / "site.log").open("wb") as log:
        program = subprocess.Popen(
            [
                *(Path(sys.executable).parent / "edgesite", "up", "--data-dir", data, "--node-name", "node1"),
                *("--api-address", f"127.0.0.1:{port}", "--runtime", "cri", "--cri-endpoint", daemon.endpoint),
                *("-v", "2", *no_ports),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            _await_ready(program, out)
            yield data / "admin.kubeconfig"
        finally:
            program.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.communicate(timeout=_END_S)
            program.kill()
            program.wait()


def _await_ready(program: subprocess.Popen[bytes], out: Path) -> None:
    assert program.stdout is not None
    for line in program.stdout:  # ends with the program
        if b"Ready after" in line:
            return
    raise RuntimeError(f"the site does not come up; see {out / 'site.log'}")


async def _test(arguments: argparse.Namespace, kubeconfig: Path, out: Path) -> None:
    async with _registries(arguments) as (open_one, closed_one):
        repository_list = out / "repositories.json"  # JSON is YAML
        repository_list.write_bytes(json.dumps(repositories(open_one, closed_one)))
        credentials = base64.b64encode(":".join(_CREDENTIALS).encode()).decode()
        docker_config = out / "docker.json"
        docker_config.write_bytes(json.dumps({"auths": {closed_one: {"auth": credentials}}}))
        command = [
            *_runner(arguments),
            *("--provider=skeleton", f"--kubeconfig={kubeconfig}", f"--report-dir={out}", "--num-nodes=1"),
            "--container-runtime=remote",
            *(f"--docker-config-file={docker_config}", f"--kubectl-path={arguments.kubectl}"),
            "--e2e-verify-service-account=false",  # since v1.24 accounts have no Secrets
            *("--disable-log-dump=true", "--node-schedulable-timeout=1m", "--system-pods-startup-timeout=1m"),
        ]
        environment = {**os.environ, "KUBE_TEST_REPO_LIST": str(repository_list), "KUBECONFIG": str(kubeconfig)}
        with (out / "e2e.log").open("wb") as log:
            await _run_group(command, log, environment)


async def _run_group(command: list[str], log: IO[bytes], environment: dict[str, str]) -> None:
    """Run a program; it ends with all that it has started, also when we are told to end."""
    async with anyio.create_task_group() as tasks:
        process = await anyio.open_process(command, stdout=log, stderr=log, env=environment, start_new_session=True)

        async def listen() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    tasks.cancel_scope.cancel()

        tasks.start_soon(listen)
        try:
            await process.wait()
            tasks.cancel_scope.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.wait()


def _runner(arguments: argparse.Namespace) -> list[str]:
    """The start of the command line: through ginkgo where there is one, else one test after the other."""
    program, focus = str(arguments.e2e.absolute()), arguments.focus
    if arguments.ginkgo:
        options = [f"-nodes={arguments.parallel}", f"-focus={focus}", "-noColor", "-keepGoing"]
        options += [f"-skip={arguments.skip}"] if arguments.skip else []
        return [str(arguments.ginkgo.absolute()), *options, program, "--"]
    options = [f"-ginkgo.focus={focus}", "-ginkgo.noColor"]
    return [program, *options, *([f"-ginkgo.skip={arguments.skip}"] if arguments.skip else [])]


@asynccontextmanager
async def _registries(arguments: argparse.Namespace) -> AsyncIterator[tuple[str, str]]:
    """Serve all images openly, and one only to who has the credentials; gives both addresses."""
    images = e2e_images(arguments.agnhost, arguments.nonewprivs)
    closed = Registry({AUTHENTICATED: images.pop(AUTHENTICATED)})
    closed.credentials = _CREDENTIALS
    net = RealNet()
    async with HttpServer(Registry(images).handle) as first, HttpServer(closed.handle) as second:
        listeners = [await one.listen(net, "127.0.0.1:0") for one in (first, second)]
        yield listeners[0].address, listeners[1].address


def _report(out: Path) -> int:
    cases = sorted(_cases(out), key=lambda case: (case.passed, case.name))
    tally = Counter("passed" if case.passed else "failed" for case in cases)
    lines = [f"{'ok  ' if case.passed else 'FAIL'} {case.seconds:6.1f} s  {case.name}" for case in cases]
    (out / "result.txt").write_text("".join(f"{line}\n" for line in lines))
    for case in cases:
        if not case.passed:
            print(f"FAIL {case.name}\n     {case.message}")
    print(f"{tally['passed']} passed, {tally['failed']} failed; see {out}")
    return 0 if cases and not tally["failed"] else 1


def _cases(out: Path) -> Iterator[Case]:
    """Each test that ran, from the reports that e2e.test wrote."""
    for path in sorted(out.glob("junit_*.xml")):
        for element in xml.parse(path).getroot().iter("testcase"):
            if element.find("skipped") is not None:
                continue
            failure = element.find("failure")
            said = re.sub(r"\s+", " ", (failure.text or "") if failure is not None else "")
            yield Case(element.get("name", ""), float(element.get("time", "0")), failure is None, said[:600])


if __name__ == "__main__":
    sys.exit(main())
