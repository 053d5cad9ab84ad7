"""The short-lived process that validates configuration: a request as JSON on standard input, the answer on standard output."""

from __future__ import annotations

import json
import sys

from edgesite.runtime.config.validate import Problem, Request, validate
from edgesite.runtime.plugins import add_places

__all__ = ["main"]


def main() -> int:
    """Answer ``{"values", "warnings"}`` or ``{"problems"}``."""
    request = Request(**json.load(sys.stdin))
    if request.sections:
        add_places()
    request.sections = [(role, path, model) for role, path, model in request.sections]
    try:
        values, warnings = validate(request)
        answer = {"values": values, "warnings": warnings}
    except Problem as exc:
        answer = {"problems": exc.lines}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
