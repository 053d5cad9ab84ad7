"""/healthz, /livez, /readyz, each check by itself, and /metrics.

Errors  ApiError NotFound for a check that does not exist.
State   None.
Source  Kubernetes API health endpoints; Prometheus text exposition format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from edgesite.apiserver.kinds import NOT_SERVED
from edgesite.kube.errors import ApiError
from edgesite.net.http import Response

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from edgesite.apiserver.documents import Documents
    from edgesite.context import Health
    from edgesite.net.http import Request

__all__ = ["add_health", "add_metrics"]

_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\ncache-control: no-cache, private\r\n"
Report = Iterable[tuple[str, str | None]]


def add_health(documents: Documents, health: Health) -> None:
    """Serve the state of the whole role. /healthz is /readyz by its old name."""

    def endpoint(path: str, live: bool) -> None:
        def answer(request: Request, rest: str) -> Response:
            report = health.report("live" if live else "ready")
            if rest:
                report = [(name, why) for name, why in report if name == rest]
                if not report:
                    raise ApiError(404, "NotFound", NOT_SERVED, {})
            query = request.query if request.raw_query else {}
            return _rendered(path, report, "verbose" in query, query.get("exclude", []))

        documents.add(f"/{path}", answer, below=True)

    endpoint("livez", True)
    endpoint("readyz", False)
    endpoint("healthz", False)


def _rendered(path: str, report: Report, verbose: bool, excluded: list[str]) -> Response:
    lines: list[str] = []
    failed = False
    for name, why in report:
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
        elif why is None:
            lines.append(f"[+]{name} ok")
        else:  # why is for the log and for authenticated readers of the module's state, not for anybody
            lines.append(f"[-]{name} failed: reason withheld")
            failed = True
    if failed:
        return Response(500, _TEXT, "\n".join([*lines, f"{path} check failed", ""]).encode())
    if not verbose:
        return Response(200, _TEXT, b"ok")
    return Response(200, _TEXT, "\n".join([*lines, f"{path} check passed", ""]).encode())


def add_metrics(documents: Documents, registry: CollectorRegistry) -> None:
    """Serve the metrics of the whole role."""

    def answer(request: Request, rest: str) -> Response:
        from prometheus_client import exposition  # needed by who scrapes only

        render, content_type = exposition.choose_encoder(request.headers.get("accept") or "")
        return Response(200, b"content-type: %b\r\n" % content_type.encode(), render(registry))

    documents.add("/metrics", answer)
