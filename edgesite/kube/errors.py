"""API errors: every failure that a client of the API may see, as a Kubernetes ``Status``.

    ApiError                 code, reason, message, details
      made by: bad_request, unauthorized, forbidden, not_found, already_exists, conflict, invalid, gone, ...

Source  meta/v1 Status and its StatusReason values (names and codes only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "ApiError",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "internal",
    "invalid",
    "method_not_allowed",
    "not_acceptable",
    "not_found",
    "too_large",
    "unauthorized",
    "unavailable",
    "unsupported_media_type",
]


class ApiError(Exception):
    """A request that failed, in the terms of the API.

    ``reason`` is a StatusReason ("NotFound", "Conflict", ...); ``details`` is the Status's ``details`` member;
    ``retry_after_s`` becomes a Retry-After header and ``details.retryAfterSeconds``.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_s = retry_after_s
        if retry_after_s is not None:
            self.details.setdefault("retryAfterSeconds", retry_after_s)

    def status(self) -> dict[str, Any]:
        """Return the ``Status`` object that tells a client of this error."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body

    @classmethod
    def from_status(cls, status: Mapping[str, Any], code: int = 500) -> ApiError:
        """Make the error again from a ``Status`` object received from a server; ``code`` serves where it has none."""
        return cls(
            int(status.get("code") or code),
            str(status.get("reason") or "Unknown"),
            str(status.get("message") or "the server gave no message"),
            status.get("details") or {},
        )

    def __repr__(self) -> str:
        return f"ApiError({self.code}, {self.reason!r}, {self.message!r})"


def _resource(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(name: str, resource: str, group: str) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if resource:
        details["kind"] = resource
    return details


def not_found(resource: str, name: str, group: str = "") -> ApiError:
    """``resource`` is the plural ("pods")."""
    return ApiError(
        404, "NotFound", f'{_resource(resource, group)} "{name}" not found', _details(name, resource, group)
    )


def already_exists(resource: str, name: str, group: str = "") -> ApiError:
    return ApiError(
        409, "AlreadyExists", f'{_resource(resource, group)} "{name}" already exists', _details(name, resource, group)
    )


def conflict(resource: str, name: str, why: str, group: str = "") -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_resource(resource, group)} "{name}": {why}',
        _details(name, resource, group),
    )


def invalid(kind: str, name: str, causes: Sequence[Mapping[str, str]], group: str = "") -> ApiError:
    """``causes``: each has ``reason`` ("FieldValueInvalid", ...), ``message`` and ``field`` (a path such as "spec.replicas")."""
    texts = [f"{one['field']}: {one['message']}" for one in causes]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = _details(name, kind, group)
    details["causes"] = [dict(one) for one in causes]
    return ApiError(422, "Invalid", f'{f"{kind}.{group}" if group else kind} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiError:
    return ApiError(401, "Unauthorized", message)


def forbidden(resource: str, name: str, why: str, group: str = "") -> ApiError:
    what = f'{_resource(resource, group)} "{name}"' if name else _resource(resource, group)
    return ApiError(403, "Forbidden", f"{what} is forbidden: {why}", _details(name, resource, group))


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> ApiError:
    return ApiError(405, "MethodNotAllowed", message)


def not_acceptable(accepted: str) -> ApiError:
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {accepted}")


def unsupported_media_type(accepted: str) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {accepted}",
    )


def expired(message: str) -> ApiError:
    """The revision asked for is compacted: list again."""
    return ApiError(410, "Expired", message)


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit_bytes}")


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}")


def unavailable(message: str, retry_after_s: int | None = 1) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message, None, retry_after_s)
