"""What a role says of itself on /livez, /readyz and /healthz: the state of each module and the checks that modules add."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

__all__ = ["RoleHealth", "render"]

Check = Callable[[], str | None]


class RoleHealth:
    """Implements `edgesite.context.Health`. A check that raises counts as failed."""

    def __init__(self) -> None:
        self._ready: dict[str, Check] = {}
        self._live: dict[str, Check] = {"ping": lambda: None}

    def add_check(self, name: str, check: Check, *, live: bool = False) -> None:
        self._ready[name] = check
        if live:
            self._live[name] = check

    def report(self, kind: Literal["live", "ready"]) -> list[tuple[str, str | None]]:
        """Each check with None, or with why it fails."""
        checks = self._live if kind == "live" else {"ping": self._live["ping"], **self._ready}
        return [(name, _outcome(check)) for name, check in checks.items()]


def _outcome(check: Check) -> str | None:
    try:
        return check()
    except Exception as exc:
        return f"the check failed: {type(exc).__name__}"


def render(
    report: Iterable[tuple[str, str | None]], *, path: str, verbose: bool, excluded: Iterable[str] = ()
) -> tuple[int, str]:
    """Return status code and text as Kubernetes' components word them. ``path`` is "readyz" and so on."""
    skip = set(excluded)
    lines, failed = [], []
    for name, why in report:
        if name in skip:
            lines.append(f"[+]{name} excluded: ok")
        elif why is None:
            lines.append(f"[+]{name} ok")
        else:
            lines.append(f"[-]{name} failed: {why}")
            failed.append(name)
    if failed:
        return 500, "\n".join([*lines, f"{path} check failed", ""])
    return 200, "\n".join([*lines, f"{path} check passed", ""]) if verbose else "ok"
