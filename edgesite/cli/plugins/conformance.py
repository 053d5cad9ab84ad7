"""``edgesite plugins check``: holds plugins to the conformance kit of `edgesite.testing.pluginkit`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["check"]


def check(targets: Sequence[str]) -> int:
    """Check each plugin and print what was found; returns the exit code."""
    try:
        from edgesite.testing.pluginkit import examine
    except ImportError:
        print(
            "edgesite: the conformance kit is not part of this build: pip install edgesite where the plugin is built",
            file=sys.stderr,
        )
        return 1
    code = 0
    for target in targets:
        for result in examine(target):
            print(
                f"{'ok' if not result.problem else 'FAILED':<8}{target}: {result.name}{f': {result.problem}' if result.problem else ''}"
            )
            code = 1 if result.problem else code
    return code
