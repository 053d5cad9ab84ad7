"""The project of a mapper: names made of the mapper's, and files made of texts.

The folder appears whole or not at all.

Errors  BadName; FileExistsError where there is something already; OSError.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import edgesite
from edgesite.cli.mapper.code import CODE
from edgesite.cli.mapper.texts import TEXTS
from edgesite.hookspecs import ABI

__all__ = ["BadName", "Project"]

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_PROTOCOL: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?")


class BadName(ValueError):
    """A name that no mapper or no protocol can have."""


@dataclass(frozen=True, slots=True)
class Project:
    """Raises BadName."""

    name: str
    protocol: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or "--" in self.name:
            raise BadName(
                f"{self.name!r} is no name for a mapper: lower-case letters and digits with single '-' between them, at most 40"
            )
        if not _PROTOCOL.fullmatch(self.protocol):
            raise BadName(
                f"{self.protocol!r} is no name for a protocol: letters, digits, '-', '_' and '.', at most 63, a letter or digit at both ends"
            )

    @property
    def distribution(self) -> str:
        return f"edgesite-mapper-{self.name}"

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def driver(self) -> str:
        words = "".join(one.capitalize() for one in self.name.split("-"))
        return f"{'M' if words[0].isdigit() else ''}{words}Driver"

    def files(self) -> dict[str, str]:
        """By path within the project."""
        words = {
            "name": self.name,
            "protocol": self.protocol,
            "distribution": self.distribution,
            "package": self.package,
            "driver": self.driver,
            "abi": str(ABI),
            "version": edgesite.__version__,
        }
        return {
            Template(path).substitute(words): Template(text).substitute(words)
            for path, text in {**TEXTS, **CODE}.items()
        }

    def write(self, where: Path) -> Path:
        """Write the project's folder into ``where``; return it. Raises FileExistsError, OSError."""
        folder = where / self.distribution
        if os.path.lexists(folder):
            raise FileExistsError(f"{folder} is there already; it is left as it is")
        where.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{self.distribution}-", dir=where))
        try:
            for path, text in self.files().items():
                file = made / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            made.chmod(0o755)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return folder
