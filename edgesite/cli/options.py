"""Options that the commands which run roles share, and how they become a `Plan`."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesite.cli.errors import UsageError
from edgesite.runtime import logs
from edgesite.runtime.config.load import BadConfig, load
from edgesite.runtime.paths import default_data_dir
from edgesite.runtime.plugins import PluginHost, discover
from edgesite.runtime.reload import Configuration, take_logging

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from edgesite.runtime.site import Plan, Site

__all__ = ["add_common", "add_port", "address", "common_exit", "config_file", "overlay", "read_config", "run_plan"]

logger = logging.getLogger(__name__)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options of every role: configuration, data folder, logging."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="configuration file")
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, help=f"where state is kept (default {default_data_dir()})"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="sets",
        help="override one setting; may be repeated",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json", "journal"),
        help="default: fields for the journal where standard error leads there, else text",
    )
    parser.add_argument("-v", metavar="N", type=int, dest="verbosity", help="verbosity of the log, 0 to 5")
    parser.add_argument(
        "--defaultconfig", action="store_true", help="print the complete default configuration and exit"
    )
    parser.add_argument("--minconfig", action="store_true", help="print a short configuration and exit")
    parser.add_argument("--version", nargs="?", const="true", metavar="raw", help="print the version and exit")


def add_port(parser: argparse.ArgumentParser, flag: str, help: str) -> None:
    parser.add_argument(flag, metavar="PORT", type=_port, help=help)


def _port(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 1 to 65535")
    return number


def address(text: str) -> str:
    """Check HOST:PORT (type of an option); port 0 lets the system choose."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: write HOST:PORT")
    return text


def common_exit(arguments: argparse.Namespace, kind: str) -> int | None:
    """Do what ``--version``, ``--defaultconfig`` and ``--minconfig`` ask, and return the exit code; None if none is given."""
    import edgesite

    if arguments.version:
        print(f"KubeEdge v1.12.7-edgesite.{edgesite.__version__}")
        return 0
    if arguments.defaultconfig or arguments.minconfig:
        from edgesite.runtime.config.validate import defaults

        sys.stdout.write(defaults(kind, minimal=arguments.minconfig and not arguments.defaultconfig))
        return 0
    return None


def config_file(arguments: argparse.Namespace, kubeedge_default: str) -> Path | None:
    """The file to read: what ``--config`` says, else KubeEdge's own place when started by KubeEdge's name."""
    if arguments.config:
        return Path(arguments.config)
    default = Path(kubeedge_default)
    return default if arguments.started_as in ("cloudcore", "edgecore") and default.exists() else None


def overlay(*pairs: tuple[str, Any]) -> dict[str, Any]:
    """Nest dotted paths; pairs whose value is None are left out."""
    top: dict[str, Any] = {}
    for path, value in pairs:
        if value is None:
            continue
        place = top
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return top


def read_config(
    arguments: argparse.Namespace,
    kind: str,
    plugins: PluginHost,
    *,
    data_dir: Path,
    file: Path | None,
    underlay: Mapping[str, Any],
    overlay: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the validated values of the whole site; warnings are logged. ``arguments.configuration`` can read them again.
    Raises UsageError."""
    read = functools.partial(
        load,
        kind,
        file=file,
        sets=arguments.sets,
        underlay=underlay,
        overlay=overlay,
        sections=[(one.role, one.path, one.model) for one in plugins.config_sections()],
        cache=data_dir / "config.cache",
    )
    try:
        values, warnings = read()
    except BadConfig as exc:
        raise UsageError(exc.problems) from None
    for one in warnings:
        logger.warning("%s", one)
    if not getattr(arguments, "demo", False):  # which shows the site instead of a log
        take_logging(values, arguments.verbosity)
    arguments.configuration = Configuration(values, read, verbosity=arguments.verbosity)
    return values


def prepare(arguments: argparse.Namespace, *, quiet: bool = False) -> tuple[PluginHost, Path]:
    """Set up logging, load plugins, find the data folder."""
    logs.configure(
        form=arguments.log_format,
        verbosity=arguments.verbosity or 0,
        quiet=quiet,
        identifier=os.path.basename(sys.argv[0]),
    )
    return PluginHost(discover()), (arguments.data_dir or default_data_dir()).absolute()


def run_plan(
    plan: Plan,
    plugins: PluginHost,
    beside: Callable[[Site], Coroutine[Any, Any, None]] | None = None,
    *,
    configuration: Configuration | None = None,
) -> int:
    """Run the process and turn start-up failures into a line and an exit code. ``configuration`` is read again on SIGHUP."""
    from edgesite.runtime.site import DataDirInUse, SiteFailed, run

    try:
        return run(plan, plugins, beside=beside, configuration=configuration)
    except (DataDirInUse, SiteFailed) as exc:
        print(f"edgesite: {exc}", file=sys.stderr)
    except PermissionError as exc:
        print(
            f"edgesite: no permission for {exc.filename or plan.data_dir}: run as root, or give a --data-dir that is yours",
            file=sys.stderr,
        )
    except OSError as exc:
        print(f"edgesite: cannot use the data folder {plan.data_dir}: {exc.strerror or exc}", file=sys.stderr)
    return 1


def unique_nodes(first: str, count: int) -> Sequence[str]:
    """Names of ``count`` nodes: the first as it is, the others with -2, -3 …"""
    return [first, *(f"{first}-{number}" for number in range(2, count + 1))]
