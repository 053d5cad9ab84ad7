"""Bodies to objects: decoding, field validation, defaults, validation and conversion, along the schemas of `edgesite.kube`.

Errors  ApiError BadRequest for what cannot be decoded, Invalid for what the kind's rules refuse.
State   The schemas, read once.
Source  Kubernetes API concepts (field validation); API reference.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.managers import Managers
from edgesite.kube import defaults, errors, json, schema_decode, validation
from edgesite.kube.negotiate import BodyFormat
from edgesite.kube.patch import check_depth

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind
    from edgesite.kube.schema import Schemas

__all__ = ["Scheme", "may_hold_twice", "parse_body"]

Object = dict[str, Any]
_SPACED: Final = re.compile(rb'"\s+:')  #: a member whose colon stands apart


def parse_body(body: bytes, form: BodyFormat) -> Any:
    """Return the value that a body holds. Raises ApiError (BadRequest)."""
    if form is BodyFormat.JSON:
        try:
            return json.loads(body)
        except RecursionError:
            raise errors.bad_request("error decoding the body: json: exceeded max depth") from None
        except json.InvalidJson as exc:
            if body.lstrip()[:1] not in (b"{", b"["):
                raise errors.bad_request(f"couldn't get version/kind; json parse error: {exc}") from None
            raise errors.bad_request(f"error decoding the body: json parse error: {exc}") from None
    if form is BodyFormat.PROTOBUF:
        from edgesite.apiserver import protobuf  # its tables are only worth their memory once a Go client writes

        return protobuf.parse(body)
    if body.lstrip()[:1] == b"{":  # most clients write their YAML as JSON
        try:
            return json.loads(body)
        except (json.InvalidJson, RecursionError):
            return _yaml(body)
    return _yaml(body)


def _yaml(body: bytes) -> Any:
    from edgesite.apiserver import yamlbody  # YAML costs a megabyte; most processes never see a body in it

    return yamlbody.parse(body)


def may_hold_twice(body: bytes, value: Any) -> bool:
    """Whether a JSON text may name a member twice; no means no, and is cheap to find out.

    Every member is a quote and a colon in the text. As many of these as members in the value leave none to spare.
    """
    return body.count(b'":') != _members(value) or _SPACED.search(body) is not None


def _members(value: Any) -> int:
    count = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if type(one) is dict:
            count += len(one)
            waiting.extend(one.values())
        elif type(one) is list:
            waiting.extend(one)
    return count


class Scheme:
    """What is known of kinds beyond their rows."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self.managers = Managers(schemas)

    def decode(self, kind: Kind, obj: Object, field_validation: str, warnings: list[str], body: bytes = b"") -> Object:
        """Check types and unknown fields; ``body`` is searched for fields given twice. Raises ApiError."""
        row = kind.resource
        if kind.custom is not None or kind.definition is None:  # no schema of ours bounds it
            check_depth(obj)
        decoded: Object
        if kind.custom is not None:
            decoded, problems = kind.custom.decode(obj)
        else:
            result = schema_decode.decode(self.schemas, row.group, row.version, row.kind, obj)
            decoded, problems = result.object, result.warnings()
        if field_validation == "Ignore":
            return decoded
        if body and may_hold_twice(body, obj):
            problems = [*problems, *schema_decode.duplicate_fields(body)]
        if problems and field_validation == "Strict":
            raise schema_decode.strict_error(row.kind, row.version, problems)
        warnings.extend(problems)
        return decoded

    def default(self, kind: Kind, obj: Object) -> None:
        """Fill in what the client left out."""
        row = kind.resource
        if kind.custom is not None:
            kind.custom.default(obj)
        else:
            defaults.apply(row.group, row.version, row.kind, obj)

    def validate(self, kind: Kind, new: Object, old: Object | None, subresource: str = "") -> None:
        """Raises ApiError (Invalid) with every cause."""
        row = kind.resource
        causes = (
            validation.validate(row, new) if old is None else validation.validate_update(row, new, old, subresource)
        )
        if kind.custom is not None:
            causes = [*causes, *kind.custom.validate(new)]
        if causes:
            raise errors.invalid(row.kind, new["metadata"].get("name") or "", causes, row.group)
