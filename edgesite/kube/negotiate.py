"""Content negotiation: which form of an object a client wants, and in which encoding.

Errors  ApiError NotAcceptable (406) and UnsupportedMediaType (415). Answers are never protobuf or CBOR: clients name
        JSON as a further choice, or are told what there is.
State   None; the outcome of a header is worth caching by the caller, for clients send few different ones.
Source  Kubernetes API concepts (resource representations, Table and PartialObjectMetadata by ``as``, ``g``, ``v``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgesite.kube import errors

__all__ = ["ACCEPTED", "DEFAULT_VIEW", "BodyFormat", "Form", "View", "body_format", "negotiate", "patch_type"]

ACCEPTED: Final = "application/json, application/yaml"
_PATCH_TYPES: Final = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


class Form(Enum):
    OBJECT = "object"
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"


class BodyFormat(Enum):
    JSON = "json"
    YAML = "yaml"
    PROTOBUF = "protobuf"  #: of request bodies only


@dataclass(frozen=True, slots=True)
class View:
    """How to answer. ``version`` is that of meta.k8s.io for forms other than the object itself."""

    form: Form = Form.OBJECT
    version: str = "v1"
    format: BodyFormat = BodyFormat.JSON
    include: str = ""  #: Table's includeObject: "", "None", "Metadata" or "Object"

    @property
    def content_type(self) -> str:
        return "application/json" if self.format is BodyFormat.JSON else "application/yaml"


DEFAULT_VIEW: Final = View()


def _clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    """Return media types with their parameters, best first; those of equal weight keep their order."""
    weighted: list[tuple[float, str, dict[str, str]]] = []
    for clause in accept.split(","):
        media, *raw = (part.strip() for part in clause.split(";"))
        params = {
            key.strip().lower(): value.strip().strip('"') for key, _, value in (one.partition("=") for one in raw)
        }
        try:
            weight = float(params.pop("q", "1"))
        except ValueError:
            weight = 0.0
        if media and weight > 0:
            weighted.append((-weight, media.lower(), params))
    weighted.sort(key=lambda one: one[0])
    return [(media, params) for _, media, params in weighted]


def negotiate(accept: str | None, *, tables: bool = True, include: str = "") -> View:
    """Return the first view in ``accept`` that is offered. ``tables`` tells whether other forms than the object are.

    Raises ApiError (NotAcceptable).
    """
    if not accept:
        return DEFAULT_VIEW
    for media, params in _clauses(accept):
        if media in ("application/json", "application/*", "*/*"):
            chosen = BodyFormat.JSON
        elif media == "application/yaml":
            chosen = BodyFormat.YAML
        else:
            continue
        form = params.get("as")
        if form is None:
            return View(format=chosen)
        if not tables or params.get("g", "meta.k8s.io") != "meta.k8s.io":
            continue
        version = params.get("v", "v1")
        if form in Form._value2member_map_ and form != "object" and version in ("v1", "v1beta1"):
            return View(Form(form), version, chosen, include)
    raise errors.not_acceptable(ACCEPTED)


def body_format(content_type: str | None) -> BodyFormat:
    """Return the format of a request body. Raises ApiError (UnsupportedMediaType)."""
    media = (content_type or "").partition(";")[0].strip().lower()
    if media in ("", "application/json"):
        return BodyFormat.JSON
    if media == "application/yaml":
        return BodyFormat.YAML
    if media == "application/vnd.kubernetes.protobuf":
        return BodyFormat.PROTOBUF
    raise errors.unsupported_media_type(f"{ACCEPTED}, application/vnd.kubernetes.protobuf")


def patch_type(content_type: str | None, *, strategic: bool = True) -> str:
    """Return "json", "merge", "strategic" or "apply". Raises ApiError (UnsupportedMediaType)."""
    media = (content_type or "").partition(";")[0].strip().lower()
    offered = {media: kind for media, kind in _PATCH_TYPES.items() if strategic or kind != "strategic"}
    if media not in offered:
        raise errors.unsupported_media_type(", ".join(offered))
    return offered[media]
