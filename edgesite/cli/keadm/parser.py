"""The command line of keadm: flags as cobra reads them, flags of other versions that mean nothing here, errors with exit code 1."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Final, NoReturn

from edgesite.cli.keadm.failure import KeadmError

__all__ = ["KeadmParser", "Unused", "add_bool", "add_labels", "add_unused", "parse_labels"]

_WORDS: Final = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class KeadmParser(argparse.ArgumentParser):
    """Raises KeadmError where argparse would end the process with code 2."""

    def __init__(self, *arguments: object, **more: object) -> None:
        super().__init__(*arguments, **({"allow_abbrev": False} | more))  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise KeadmError(f"{message} (see {self.prog} --help)")


class Unused(argparse.Action):
    """A flag of KubeEdge's that is accepted and noted in ``unused``, with why nothing comes of it."""

    def __init__(self, *arguments: object, why: str, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]
        self._why = why

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        noted: dict[str, str] = dict(getattr(namespace, "unused", {}))
        noted[option_string or self.dest] = self._why
        namespace.unused = noted


def add_unused(parser: argparse.ArgumentParser, flags: Iterable[tuple[str, str]], *, is_bool: bool = False) -> None:
    """Accept flags, each given with the reason why it has no effect here."""
    for names, why in flags:
        more: dict[str, object] = {"nargs": "?"} if is_bool else {}
        parser.add_argument(
            *names.split(),
            action=Unused,
            why=why,
            dest="unused_flag",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
            **more,  # type: ignore[arg-type]
        )


def add_bool(parser: argparse.ArgumentParser, *flags: str, default: bool, help: str) -> None:
    """A switch that may be written ``--flag``, ``--flag=true`` or ``--flag=false``."""
    parser.add_argument(*flags, nargs="?", const=True, default=default, type=_bool, metavar="true|false", help=help)


def _bool(text: str) -> bool:
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-l", "--labels", metavar="K=V,…", action="append", default=[], help="labels of the node")


def parse_labels(given: Iterable[str]) -> dict[str, str]:
    """Labels from ``k=v,k2=v2``, repeated or not. Raises KeadmError."""
    from edgesite.kube.names import label_value_problems, qualified_name_problems

    labels: dict[str, str] = {}
    for one in (part for text in given for part in text.split(",") if part):
        key, equals, value = one.partition("=")
        problems = [*qualified_name_problems(key), *label_value_problems(value)]
        if not equals or problems:
            raise KeadmError(f"--labels: {one!r} is no label: {problems[0] if problems else 'write KEY=VALUE'}")
        labels[key] = value
    return labels
