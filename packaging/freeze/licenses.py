"""The licences of what is bundled, as texts beside it; those of Python distributions come with their metadata.

The program's own, the Apache License 2.0, is not in the repository: the build takes the text that Debian has on every system.

Errors  BuildFailed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from command import BuildFailed

__all__ = ["OWN", "collect"]

OWN: Final = "usr/share/common-licenses/Apache-2.0"


def collect(folder: Path, root: Path, packages: Iterable[str]) -> None:
    """Fill ``licenses`` in a bundle from the build root. Raises BuildFailed."""
    target = folder / "_internal" / "licenses"
    target.mkdir()
    texts = {package: root / "usr/share/doc" / package / "copyright" for package in packages}
    texts["python3.11"] = root / "opt/python/lib/python3.11/LICENSE.txt"
    texts["openssl"] = texts["edgesite"] = root / OWN
    for package, text in sorted(texts.items()):
        if not text.is_file():
            raise BuildFailed(f"the build root has no licence of {package}")
        shutil.copyfile(text, target / f"{package}.txt")
