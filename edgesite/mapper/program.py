"""A driver as a program of its own, which reaches the edge over DMI.

    sys.exit(run(ModbusDriver, name="modbus"))

    --edge-socket PATH     where the edge serves mappers (/etc/kubeedge/dmi.sock)
    --socket PATH          where this mapper serves the edge (/etc/kubeedge/NAME.sock)
    --http ADDRESS         devices by HTTP, metrics and health; "" for none (127.0.0.1:7777, unless another mapper has it)
    --protocol NAME        the name by which devices ask for it
    --dmi VERSION          v1beta1, v1alpha1, or auto
    --config-file FILE     the same from a file as KubeEdge's mappers have it (grpc_server.socket_path, common.name, .protocol, .edgecore_sock,
                           .http_port, .version, .api_version, .address); what the command line says goes before
    --log-level LEVEL      debug, info, warning or error; lines go to stderr

It ends on SIGTERM and SIGINT within seconds. Exit codes: 0 after a signal, 2 for bad usage or configuration, 1 where it cannot serve.

Errors  None raised: they are said on stderr.
Source  KubeEdge v1.23, mapper-framework: pkg/config (names of the file).
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, cast

import anyio
from prometheus_client import CollectorRegistry

from edgesite.mapper.dmi import DmiEnd, Identity
from edgesite.mapper.driver import Host
from edgesite.mapper.metrics import Meters
from edgesite.mapper.rest import Rest
from edgesite.mapper.worker import Make
from edgesite.net.real import RealClock, RealNet, RealThreads, loop_factory

__all__ = ["run"]

EDGE_SOCKET: Final = "/etc/kubeedge/dmi.sock"
HTTP: Final = "127.0.0.1:7777"
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")
_PATH_BYTES: Final = 107  #: what an address of a unix socket holds
_LOG: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
Dmi = Literal["auto", "v1alpha1", "v1beta1"]


class _Usage(Exception):
    """What is wrong with the arguments or the file."""


@dataclass(frozen=True, slots=True)
class _Settings:
    identity: Identity
    edge: str
    http: str
    needs_http: bool  #: somebody has asked for that address
    dmi: Dmi


def run(driver: Make, *, name: str, argv: Sequence[str] | None = None) -> int:
    """Run a mapper named ``name`` until a signal ends it; returns the exit code. ``driver`` is a class that implements `Driver`."""
    parser = _parser(name)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format=_LOG, stream=sys.stderr)
    try:
        settings = _settings(arguments, name, getattr(driver, "protocol", name))
    except _Usage as exc:
        print(f"{parser.prog}: {exc}", file=sys.stderr)
        return 2
    try:
        return anyio.run(partial(_main, driver, settings), backend_options={"loop_factory": loop_factory()})
    except* OSError as group:
        print(f"{parser.prog}: {_first(group)}", file=sys.stderr)
    except* KeyboardInterrupt:
        pass
    return 1


async def _main(driver: Make, settings: _Settings) -> int:
    """Raises OSError, alone or in a group."""
    threads = RealThreads()
    registry = CollectorRegistry()
    host = Host(
        RealNet(), RealClock(), threads, random.Random(os.urandom(16)), logging.getLogger(settings.identity.name)
    )
    end = DmiEnd(settings.identity, settings.edge, host, version=settings.dmi)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_signalled, tasks.cancel_scope.cancel)
            fleet = await tasks.start(partial(end.run, driver, Meters(registry), environ=os.environ))
            async with AsyncExitStack() as stack:
                if settings.http:
                    await _serve_http(stack, Rest(fleet, host, settings.http, registry), host, settings)
                await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()
    return 0


async def _serve_http(stack: AsyncExitStack, rest: Rest, host: Host, settings: _Settings) -> None:
    """Several mappers of a node have the same address by default: who comes later drives devices without it. Raises OSError."""
    try:
        await stack.enter_async_context(rest)
    except OSError as exc:
        if settings.needs_http:
            raise
        host.log.warning("%s (--http)", exc)
    else:
        host.log.info("devices are served at %s", rest.address)


async def _until_signalled(stop: Callable[[], object]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop()
            return


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


# Settings


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Mapper {name}: drives devices for an edge node, over DMI.", allow_abbrev=False
    )
    parser.add_argument("--edge-socket", metavar="PATH", help=f"where the edge serves mappers ({EDGE_SOCKET})")
    parser.add_argument(
        "--socket", metavar="PATH", help=f"where this mapper serves the edge (/etc/kubeedge/{name}.sock)"
    )
    parser.add_argument("--http", metavar="ADDRESS", help=f'devices, metrics and health by HTTP; "" for none ({HTTP})')
    parser.add_argument("--protocol", metavar="NAME", help="the name by which devices ask for this mapper")
    parser.add_argument(
        "--dmi", choices=("auto", "v1beta1", "v1alpha1"), default="auto", help="version of the interface (auto)"
    )
    parser.add_argument("--config-file", metavar="FILE", type=Path, help="a file as KubeEdge's mappers have it")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(info)")
    return parser


def _settings(arguments: argparse.Namespace, name: str, protocol: str) -> _Settings:
    """Raises _Usage."""
    file = _read(arguments.config_file) if arguments.config_file else {}
    common, grpc = _section(file, "common"), _section(file, "grpc_server")
    name = _text(common, "name") or name
    if not _NAME.fullmatch(name):
        raise _Usage(f"{name!r} is no name for a mapper: letters, digits, '-', '_' and '.'")
    socket = _path(arguments.socket or _text(grpc, "socket_path") or f"/etc/kubeedge/{name}.sock", "--socket")
    edge = _path(arguments.edge_socket or _text(common, "edgecore_sock") or EDGE_SOCKET, "--edge-socket")
    http = HTTP
    if port := _text(common, "http_port"):
        http = f"{_text(common, 'address') or '127.0.0.1'}:{port}"
    if arguments.http is not None:
        http = arguments.http
    if http and not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):[0-9]{1,5}", http):
        raise _Usage(f"--http {http}: it is written as 127.0.0.1:7777")
    identity = Identity(
        name,
        arguments.protocol or _text(common, "protocol") or protocol,
        socket,
        _text(common, "version") or "v1.0.0",
        _text(common, "api_version") or "v1.0.0",
    )
    return _Settings(identity, edge, http, bool(port) or arguments.http is not None, cast("Dmi", arguments.dmi))


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise _Usage(f"{path}: {exc}") from None
    if not isinstance(found, dict):
        raise _Usage(f"{path} holds no configuration")
    return found


def _section(file: dict[str, Any], name: str) -> dict[str, Any]:
    found = file.get(name) or {}
    if not isinstance(found, dict):
        raise _Usage(f"{name} is no section")
    return found


def _text(section: dict[str, Any], name: str) -> str:
    found = section.get(name)
    if found is None or (isinstance(found, str | int) and not isinstance(found, bool)):
        return "" if found is None else str(found)
    raise _Usage(f"{name} is no text")


def _path(path: str, option: str) -> str:
    if not path.startswith("/") or len(path.encode()) > _PATH_BYTES:
        raise _Usage(f"{option} {path}: an absolute path of at most {_PATH_BYTES} bytes")
    return path
