"""The webhooks: an HTTP handler that a cluster's API server asks.

    POST /convert         ConversionReview: objects in the version that is wanted
    POST /devices         AdmissionReview of a Device
    POST /devicemodels    AdmissionReview of a DeviceModel

A model is looked up in the cache first, and in the API before anything is refused for it: it may have been applied a moment ago. What
cannot be decided is answered with a status of 400 and more: the API server then follows the webhook's failurePolicy.
Objects may hold passwords (OPC UA), so that none is ever logged.

Units   Bytes.
Errors  None raised; who sends what is no review gets 400, 404, 405, 413 or 415, and is counted.
State   None.
Source  Kubernetes: dynamic admission control and webhook conversion; KubeEdge v1.18, cloud/pkg/admissioncontroller (paths).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import anyio.lowlevel

from edgesite.cloud.admission.place import CONVERT, DEVICES, MODELS
from edgesite.kube import json
from edgesite.kube.devices import judgement
from edgesite.kube.devices.reviews import BadReview, Conversions, Question, answer, question
from edgesite.kube.errors import ApiError
from edgesite.net.http import Request, Response

__all__ = ["ADMISSION_BYTES", "CONVERSION_BYTES", "Webhooks"]

Object = dict[str, Any]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
ADMISSION_BYTES: Final = 1 << 20  #: as KubeEdge
CONVERSION_BYTES: Final = 32 << 20  #: a page of a list may hold thousands of devices
_LOOK_S: Final = 3.0  #: for a model; the API server waits `install.TIMEOUT_S`
_LOOKS: Final = 4  #: models at a time: whoever reaches the port makes us ask the API
_AT_A_TIME: Final = 50  #: conversions between two turns of the loop
_JSON: Final = {"Content-Type": "application/json"}
_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}
_PATHS: Final = frozenset({CONVERT, DEVICES, MODELS})


class _Refused(Exception):
    """The request is no review: status and words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Webhooks:
    """``cached`` and ``live`` give a DeviceModel by namespace and name, None if there is none; ``live`` asks the API and raises ApiError.
    ``count`` is told what was asked and what became of it."""

    def __init__(
        self,
        cached: Callable[[str, str], Object | None],
        live: Callable[[str, str], Awaitable[Object | None]],
        count: Callable[[str, str], None],
        log: Log,
    ) -> None:
        self._cached = cached
        self._live = live
        self._count = count
        self._log = log
        self._looks = anyio.CapacityLimiter(_LOOKS)
        self._is_silent = False  # the API did not answer the last time, and that was logged
        self._failed: set[str] = set()  # types of failures that were told with their traceback

    async def __call__(self, request: Request) -> Response:
        what = request.path.lstrip("/") if request.path in _PATHS else "other"
        try:
            review = _review(request)
            body = await (self._convert(review) if what == "convert" else self._admit(review))
        except _Refused as exc:
            self._count(what, "malformed")
            return Response(exc.status, _TEXT, str(exc).encode())
        except BadReview as exc:
            self._count(what, "malformed")
            return Response(400, _TEXT, str(exc).encode())
        except (ApiError, TimeoutError) as exc:
            self._count(what, "failed")
            if not self._is_silent:
                self._is_silent = True
                self._log.warning(
                    "a device could not be checked: the API does not tell of its model: %s; further ones are counted alone",
                    exc or "no answer",
                )
            return Response(500, _TEXT, b"the model cannot be looked up now")
        except Exception as exc:
            self._count(what, "failed")
            self._tell(what, exc)
            return Response(400, _TEXT, b"the review cannot be read")
        return Response(200, _JSON, json.dumps(body))

    def _tell(self, what: str, exc: Exception) -> None:
        """Each kind of failure once: anybody who reaches the port can cause one."""
        kind = f"{what} {type(exc).__name__}"
        if kind not in self._failed:
            self._failed.add(kind)
            self._log.exception("a review could not be answered (%s); further ones like it are counted alone", what)

    async def _convert(self, review: Any) -> Object:
        """Raises BadReview."""
        conversions = Conversions(review)
        for at, _ in enumerate(conversions.steps(), start=1):
            if at % _AT_A_TIME == 0:
                await anyio.lowlevel.checkpoint()
        made = conversions.answer()
        self._count("convert", "done" if "convertedObjects" in made["response"] else "refused")
        return made

    async def _admit(self, review: Any) -> Object:
        """Raises BadReview, ApiError, TimeoutError."""
        asked = question(review)
        what = "devices" if asked.kind == "Device" else "devicemodels"
        obj = asked.object
        if asked.operation not in ("CREATE", "UPDATE") or obj is None or not judgement.is_looked_at(obj, asked.old):
            self._count(what, "allowed")
            return answer(asked, None, [])
        error, warnings = await self._judge(asked, obj)
        self._count(what, "allowed" if error is None else "denied")
        return answer(asked, error, warnings)

    async def _judge(self, asked: Question, obj: Object) -> tuple[ApiError | None, list[str]]:
        """Raises ApiError, TimeoutError."""
        name = judgement.model_name(obj) if asked.kind == "Device" else ""
        if not name:
            return judgement.judged(asked.kind, asked.name, obj, None)
        model = self._cached(asked.namespace, name)
        if model is not None:
            error, warnings = judgement.judged(asked.kind, asked.name, obj, model)
            if error is None:
                return None, warnings
        with anyio.fail_after(_LOOK_S):
            async with self._looks:
                model = await self._live(asked.namespace, name)
        self._is_silent = False
        return judgement.judged(asked.kind, asked.name, obj, model)


def _review(request: Request) -> Any:
    """Raises _Refused."""
    if request.path not in _PATHS:
        raise _Refused(404, "404: Page Not Found")
    if request.method != "POST":
        raise _Refused(405, "405: Method Not Allowed")
    media_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise _Refused(415, "reviews are application/json")
    if request.path != CONVERT and len(request.body) > ADMISSION_BYTES:
        raise _Refused(413, f"the review is longer than {ADMISSION_BYTES} bytes")
    try:
        return json.loads(request.body)
    except (json.InvalidJson, RecursionError) as exc:
        raise _Refused(400, f"the review is not JSON: {exc}") from None
