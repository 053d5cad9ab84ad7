"""What a cluster's API server asks a webhook about devices, and what it is answered.

    converted(review)            a ConversionReview with its objects in the version that is wanted (`conversions` does it piece by piece)
    question(review)             an AdmissionReview, read
    answer(question, error, warnings)

Reviews are answered in the version in which they came: v1, or v1beta1 of old API servers.

Errors  BadReview: what came is no review.
State   None.
Source  Kubernetes: apiextensions.k8s.io and admission.k8s.io, v1 and v1beta1 (ConversionReview, AdmissionReview).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from edgesite.kube.devices.conversion import GROUP, V1ALPHA2, V1BETA1, to_v1alpha2, to_v1beta1
from edgesite.kube.errors import ApiError

__all__ = ["BadReview", "Conversions", "Question", "answer", "converted", "question"]

Object = dict[str, Any]
_CONVERSION: Final = frozenset({"apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"})
_ADMISSION: Final = frozenset({"admission.k8s.io/v1", "admission.k8s.io/v1beta1"})
_KINDS: Final = {"devices": "Device", "devicemodels": "DeviceModel"}
_TO: Final = {V1ALPHA2: to_v1alpha2, V1BETA1: to_v1beta1}
_MOST_WARNINGS: Final = 16
_WARNING_CHARS: Final = 240  #: kube-apiserver cuts what is longer


class BadReview(ValueError):
    """The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Question:
    """An AdmissionReview's request."""

    api_version: str  #: of the review
    uid: str
    kind: str  #: Device or DeviceModel
    operation: str
    namespace: str
    name: str
    object: Object | None
    old: Object | None


def _request(review: Any, kind: str, versions: frozenset[str]) -> Object:
    if not isinstance(review, dict) or review.get("kind") != kind or _text(review, "apiVersion") not in versions:
        raise BadReview(f"not a {kind} of {' or '.join(sorted(versions))}")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise BadReview(f"a {kind} without a request")
    return request


def _text(obj: Object, name: str) -> str:
    value = obj.get(name)
    return value if isinstance(value, str) else ""


class Conversions:
    """One ConversionReview: `steps` converts, one object each; then `answer` is complete. Raises BadReview when made."""

    def __init__(self, review: Any) -> None:
        request = _request(review, "ConversionReview", _CONVERSION)
        self._head = {"apiVersion": review["apiVersion"], "kind": "ConversionReview"}
        self._uid = request["uid"]
        self._wanted = _text(request, "desiredAPIVersion")
        objects = request.get("objects")
        self._objects: list[Any] = objects if isinstance(objects, list) else []
        self._done: list[Object] = []
        self._problem = "" if self._wanted in _TO else f"version {self._wanted!r} is unknown"

    def steps(self) -> Iterator[None]:
        to = _TO.get(self._wanted)
        for obj in self._objects if to is not None else ():
            known = isinstance(obj, dict) and _text(obj, "apiVersion") in _TO and obj.get("kind") in _KINDS.values()
            if not known or to is None:
                self._problem = "an object is no Device or DeviceModel of a version that is known"
                return
            self._done.append(to(obj))
            yield

    def answer(self) -> Object:
        response: Object = {"uid": self._uid}
        if self._problem:  # all or none: an API server takes no part
            response["result"] = {"status": "Failure", "message": self._problem}
        else:
            response["convertedObjects"] = self._done
            response["result"] = {"status": "Success"}
        return {**self._head, "response": response}


def converted(review: Any) -> Object:
    """Return the answer to a ConversionReview. Raises BadReview."""
    conversions = Conversions(review)
    for _ in conversions.steps():
        pass
    return conversions.answer()


def question(review: Any) -> Question:
    """Read an AdmissionReview. Raises BadReview."""
    request = _request(review, "AdmissionReview", _ADMISSION)
    resource = request.get("resource")
    found = resource if isinstance(resource, dict) else {}
    kind = _KINDS.get(str(found.get("resource")))
    if kind is None or found.get("group") != GROUP:
        raise BadReview("the review is of no device or model")
    obj, old = request.get("object"), request.get("oldObject")
    for one in (obj, old):
        if one is not None and not (isinstance(one, dict) and isinstance(one.get("metadata", {}), dict)):
            raise BadReview("the object is none")
    metadata = (obj or {}).get("metadata") or {}
    return Question(
        api_version=review["apiVersion"],
        uid=request["uid"],
        kind=kind,
        operation=_text(request, "operation"),
        namespace=_text(request, "namespace"),
        name=str(request.get("name") or metadata.get("name") or metadata.get("generateName") or ""),
        object=obj,
        old=old,
    )


def answer(asked: Question, error: ApiError | None, warnings: list[str]) -> Object:
    """Return the review that refuses with an error, or allows."""
    response: Object = {"uid": asked.uid, "allowed": error is None}
    if error is not None:
        response["status"] = error.status()
    if warnings:
        response["warnings"] = [one[:_WARNING_CHARS] for one in warnings[:_MOST_WARNINGS]]
    return {"apiVersion": asked.api_version, "kind": "AdmissionReview", "response": response}
