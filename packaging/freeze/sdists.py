"""Source distributions on PyPI, for what has no wheel.

Errors  BuildFailed.
State   Files in a folder of the caller's.
Source  PEP 503 (simple index), PEP 625 (names of source distributions).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import urldefrag, urljoin

from command import BuildFailed, say
from mirror import read

__all__ = ["fetch", "find", "linked"]

_INDEX: Final = "https://pypi.org/simple"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]


def find(distribution: str, version: str) -> tuple[str, str]:
    """Return the URL and the SHA-256 of a source distribution, as the index has them. Raises BuildFailed."""
    page = f"{os.environ.get('PIP_INDEX_URL', _INDEX).rstrip('/')}/{distribution}/"
    return linked(page, read(page).decode(), distribution, version)


def linked(page: str, text: str, distribution: str, version: str) -> tuple[str, str]:
    """The same for a page of the index, by its URL and text. Raises BuildFailed."""
    links = _Links()
    links.feed(text)
    wanted = re.compile(re.escape(distribution).replace(r"\-", "[-_.]") + rf"-{re.escape(version)}\.tar\.gz", re.I)
    for target in links.targets:
        url, fragment = urldefrag(urljoin(page, target))
        if wanted.fullmatch(url.rpartition("/")[2]) and fragment.startswith("sha256="):
            return url, fragment.removeprefix("sha256=")
    raise BuildFailed(f"{page} has no sources of {distribution} {version}")


def fetch(url: str, hashes: Iterable[str], folder: Path) -> Path:
    """Raises BuildFailed for what does not have one of these hashes."""
    name = url.rpartition("/")[2]
    say(f"fetch {name}")
    data = read(url)
    if hashlib.sha256(data).hexdigest() not in hashes:
        raise BuildFailed(f"{url} is not what the lock file says")
    target = folder / name
    target.write_bytes(data)
    return target
