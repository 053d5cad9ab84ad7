"""Query parameters of the API's verbs, parsed and checked once.

Units   ``timeout_s`` is seconds.
Errors  ApiError BadRequest for values that cannot be read, Invalid for combinations that make no sense.
State   None.
Source  meta/v1 ListOptions, CreateOptions, UpdateOptions, PatchOptions, DeleteOptions; API concepts (semantics of
        resourceVersion, sendInitialEvents, fieldValidation, dryRun).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgesite.kube import errors, json, selectors
from edgesite.kube.errors import ApiError
from edgesite.kube.selectable import parse_fields, parse_labels

__all__ = ["DeleteOptions", "ListOptions", "WriteOptions", "continue_token", "parse_revision", "read_continue"]

Query = Mapping[str, list[str]]
_FIELD_VALIDATION: Final = ("", "Ignore", "Warn", "Strict")
_PROPAGATION: Final = ("Foreground", "Background", "Orphan")
_MANAGER_MAX: Final = 128


def _one(query: Query, name: str) -> str:
    values = query.get(name)
    return values[0] if values else ""


def _bool(query: Query, name: str) -> bool:
    """As the API reads booleans: "0" and "false" are false, anything else that is there is true."""
    return name in query and _one(query, name).lower() not in ("false", "0")


def _int(query: Query, name: str) -> int | None:
    text = _one(query, name)
    if not text:
        return None
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit()):
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if len(digits) > 30 or not -(2**63) <= int(text) < 2**63:
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


def parse_revision(text: str) -> int | None:
    """Return the revision, None for "". Raises ApiError."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > 2**63 - 1:
        raise _options_invalid(
            "ListOptions",
            "resourceVersion",
            text,
            "FieldValueInvalid",
            f'Invalid value: "{text}": invalid resource version',
        )
    return int(text)


def _options_invalid(kind: str, path: str, _value: str, reason: str, message: str) -> ApiError:
    return errors.invalid(kind, "", [{"reason": reason, "message": message, "field": path}], "meta.k8s.io")


@dataclass(frozen=True, slots=True)
class ListOptions:
    labels: selectors.LabelSelector | None
    fields: selectors.FieldSelector | None
    revision: int | None  #: None: not given, which is not the same as 0
    match: str
    limit: int
    token: str
    timeout_s: int | None
    bookmarks: bool
    initial_events: bool | None

    @classmethod
    def of(cls, query: Query, *, watch: bool) -> ListOptions:
        """Raises ApiError."""
        if not query:
            return _PLAIN_LIST
        limit, timeout_s = _int(query, "limit"), _int(query, "timeoutSeconds")
        label_text, field_text = _one(query, "labelSelector"), _one(query, "fieldSelector")
        made = cls(
            labels=parse_labels(label_text) if label_text else None,
            fields=parse_fields(field_text) if field_text else None,
            revision=parse_revision(_one(query, "resourceVersion")),
            match=_one(query, "resourceVersionMatch"),
            limit=max(limit or 0, 0),
            token=_one(query, "continue"),
            timeout_s=timeout_s,
            bookmarks=_bool(query, "allowWatchBookmarks"),
            initial_events=_bool(query, "sendInitialEvents") if _one(query, "sendInitialEvents") else None,
        )
        made._check(watch)
        return made

    def named(self, name: str) -> ListOptions:
        """The same for one object."""
        return replace(self, fields=parse_fields(f"metadata.name={name}"))

    def _check(self, watch: bool) -> None:
        def refuse(path: str, message: str) -> ApiError:
            return _options_invalid("ListOptions", path, "", "FieldValueForbidden", f"Forbidden: {message}")

        if not watch and self.initial_events is not None:
            raise refuse("sendInitialEvents", "sendInitialEvents is forbidden for list")
        if watch and self.initial_events is not None and self.match != "NotOlderThan":
            raise refuse(
                "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
        if watch and self.initial_events is None and self.match:
            raise refuse(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        if watch or not self.match:
            return
        if self.match not in ("Exact", "NotOlderThan"):
            message = f'Unsupported value: "{self.match}": supported values: "Exact", "NotOlderThan"'
            raise _options_invalid("ListOptions", "resourceVersionMatch", self.match, "FieldValueNotSupported", message)
        if self.revision is None:
            raise refuse("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
        if self.token:
            raise refuse("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
        if self.match == "Exact" and self.revision == 0:
            raise refuse("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')


_PLAIN_LIST: Final = ListOptions(None, None, None, "", 0, "", None, False, None)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of create, update and patch."""

    dry_run: bool = False
    manager: str = ""  #: as given by the client; "" means: derive it from the user agent
    field_validation: str = "Warn"
    force: bool = False

    @classmethod
    def of(cls, query: Query, kind: str) -> WriteOptions:
        """``kind`` is the options' own ("CreateOptions"). Raises ApiError."""
        if not query:
            return _PLAIN_WRITE
        validation = _one(query, "fieldValidation")
        if validation not in _FIELD_VALIDATION:
            message = f'Unsupported value: "{validation}": supported values: "", "Ignore", "Strict", "Warn"'
            raise _options_invalid(kind, "fieldValidation", validation, "FieldValueNotSupported", message)
        manager = _one(query, "fieldManager")
        if len(manager) > _MANAGER_MAX:
            message = f"Too long: may not be more than {_MANAGER_MAX} bytes"
            raise _options_invalid(kind, "fieldManager", manager, "FieldValueTooLong", message)
        if not manager.isprintable():
            message = f'Invalid value: "{manager}": should only contain printable characters'
            raise _options_invalid(kind, "fieldManager", manager, "FieldValueInvalid", message)
        return cls(dry_run(query.get("dryRun") or (), kind), manager, validation or "Warn", _bool(query, "force"))


_PLAIN_WRITE: Final = WriteOptions()


def dry_run(values: list[str] | tuple[str, ...], kind: str) -> bool:
    """Raises ApiError for anything but All."""
    given = [value for value in values if value]
    for value in given:
        if value != "All":
            message = f'Unsupported value: "{value}": supported values: "All"'
            raise _options_invalid(kind, "dryRun", value, "FieldValueNotSupported", message)
    return bool(given)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    grace_s: int | None = None
    propagation: str = ""
    orphan: bool | None = None  #: the old spelling of propagation
    uid: str | None = None
    revision: str | None = None
    dry_run: bool = False

    @classmethod
    def of(cls, query: Query, body: Any) -> DeleteOptions:
        """``body`` is the decoded DeleteOptions object or None; what it says goes before the query. Raises ApiError."""
        if body is None:
            orphan = _bool(query, "orphanDependents") if "orphanDependents" in query else None
            made = cls(_int(query, "gracePeriodSeconds"), _one(query, "propagationPolicy"), orphan)
            made = made._with_dry_run(query.get("dryRun") or [])
        else:
            made = cls._of_body(body)
        if made.propagation and made.propagation not in _PROPAGATION:
            message = f'Unsupported value: "{made.propagation}": supported values: "Foreground", "Background", "Orphan", "nil"'
            raise _options_invalid("DeleteOptions", "propagationPolicy", "", "FieldValueNotSupported", message)
        if made.propagation and made.orphan is not None:
            message = (
                f'Invalid value: "{made.propagation}": orphanDependents and deletionPropagation cannot be both set'
            )
            raise _options_invalid("DeleteOptions", "propagationPolicy", "", "FieldValueInvalid", message)
        return made

    def _with_dry_run(self, values: list[str]) -> DeleteOptions:
        return DeleteOptions(
            self.grace_s, self.propagation, self.orphan, self.uid, self.revision, dry_run(values, "DeleteOptions")
        )

    @classmethod
    def _of_body(cls, body: Any) -> DeleteOptions:
        if not isinstance(body, dict) or body.get("kind", "DeleteOptions") != "DeleteOptions":
            raise errors.bad_request("the body of a delete request must be DeleteOptions")
        grace, conditions = body.get("gracePeriodSeconds"), body.get("preconditions")
        conditions = {} if conditions is None else conditions
        propagation, orphan, runs = (
            body.get("propagationPolicy") or "",
            body.get("orphanDependents"),
            body.get("dryRun") or [],
        )
        right = (
            (grace is None or (isinstance(grace, int) and not isinstance(grace, bool)))
            and isinstance(conditions, dict)
            and all(isinstance(conditions.get(key), str | None) for key in ("uid", "resourceVersion"))
            and isinstance(propagation, str)
            and isinstance(orphan, bool | None)
            and isinstance(runs, list)
        )
        if not right:
            raise errors.bad_request("the body of the delete request has a member of the wrong type")
        made = cls(grace, propagation, orphan, conditions.get("uid"), conditions.get("resourceVersion"))
        return made._with_dry_run([str(one) for one in runs])

    def policy(self) -> str:
        """The propagation asked for, "" when left to the kind."""
        if self.propagation:
            return self.propagation
        if self.orphan is None:
            return ""
        return "Orphan" if self.orphan else "Background"


def continue_token(revision: int, start: str) -> str:
    """Return the opaque token that resumes a list at ``start`` (exclusive), at the same revision."""
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def read_continue(token: str) -> tuple[int, str]:
    """Return revision and key. Raises ApiError (BadRequest)."""
    try:
        value = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, start = value["rv"], value["start"]
        if not isinstance(revision, int) or not isinstance(start, str):
            raise TypeError
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise errors.bad_request("continue key is not valid: encoding error") from None
    return revision, start
