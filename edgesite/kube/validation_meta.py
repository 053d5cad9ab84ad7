"""Validation of metadata and of label selectors.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of apimachinery's validation of ObjectMeta and LabelSelector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import names
from edgesite.kube.causes import IMMUTABLE, NOT_NEGATIVE, Causes

__all__ = ["check_annotations", "check_labels", "check_meta", "check_meta_update", "check_selector", "selects"]

Object = dict[str, Any]
MAX_ANNOTATIONS_BYTES: Final = 256 * 1024
_STANDARD_FINALIZERS: Final = (
    "kubernetes",
    "orphan",
    "foregroundDeletion",
    "customresourcecleanup.apiextensions.k8s.io",
)


def check_meta(causes: Causes, meta: Object, namespaced: bool, name_problems: Callable[[str], list[str]]) -> None:
    """The metadata of any object."""
    prefix = meta.get("generateName", "")
    if prefix:
        # A prefix ends where the random characters begin: it may end with a hyphen.
        causes.each("metadata.generateName", prefix, name_problems(prefix.removesuffix("-") + "a"))
    name = meta.get("name", "")
    if not name:
        causes.required("metadata.name", "name or generateName is required")
    else:
        causes.each("metadata.name", name, name_problems(name))
    namespace = meta.get("namespace", "")
    if not namespaced and namespace:
        causes.forbidden("metadata.namespace", "not allowed on this type")
    elif namespaced and not namespace:
        causes.required("metadata.namespace")
    elif namespace:
        causes.each("metadata.namespace", namespace, names.dns1123_label_problems(namespace))
    if meta.get("generation", 0) < 0:
        causes.invalid("metadata.generation", meta["generation"], NOT_NEGATIVE)
    check_labels(causes, "metadata.labels", meta.get("labels"))
    check_annotations(causes, "metadata.annotations", meta.get("annotations"))
    _check_owners(causes, meta.get("ownerReferences", ()))
    for finalizer in meta.get("finalizers", ()):
        _check_finalizer(causes, finalizer)


def check_meta_update(causes: Causes, new: Object, old: Object) -> None:
    """What an update may not change in metadata."""
    for name in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if new.get(name) != old.get(name):
            causes.invalid(f"metadata.{name}", new.get(name), IMMUTABLE)
    if new.get("generation", 0) < old.get("generation", 0):
        causes.invalid("metadata.generation", new.get("generation", 0), "must not be decremented")
    if old.get("deletionTimestamp"):
        added = sorted(set(new.get("finalizers", ())) - set(old.get("finalizers", ())))
        if added:
            shown = ", ".join(f'"{one}"' for one in added)
            causes.forbidden(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{shown}}}",
            )


def check_labels(causes: Causes, path: str, labels: Object | None) -> None:
    for key, value in (labels or {}).items():
        causes.each(path, key, names.qualified_name_problems(key))
        causes.each(path, value, names.label_value_problems(value))


def check_annotations(causes: Causes, path: str, annotations: Object | None) -> None:
    size = 0
    for key, value in (annotations or {}).items():
        causes.each(path, key, names.qualified_name_problems(key.lower()))
        size += len(key.encode()) + len(value.encode())
    if size > MAX_ANNOTATIONS_BYTES:
        causes.too_long(path, MAX_ANNOTATIONS_BYTES)


def check_selector(causes: Causes, path: str, selector: Object | None) -> None:
    """A LabelSelector."""
    if not selector:
        return
    check_labels(causes, f"{path}.matchLabels", selector.get("matchLabels"))
    for index, one in enumerate(selector.get("matchExpressions", ())):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = one.get("operator", ""), one.get("values", ())
        if operator in ("In", "NotIn"):
            if not values:
                causes.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                causes.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        else:
            causes.invalid(f"{at}.operator", operator, "not a valid selector operator")
        causes.each(f"{at}.key", one.get("key", ""), names.qualified_name_problems(one.get("key", "")))
        for number, value in enumerate(values):
            causes.each(f"{at}.values[{number}]", value, names.label_value_problems(value))


def selects(selector: Object, labels: Object) -> bool:
    """Whether a valid LabelSelector matches; an invalid one matches nothing."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_matches(one, labels) for one in selector.get("matchExpressions", ()))


def _matches(requirement: Object, labels: Object) -> bool:
    value = labels.get(requirement.get("key", ""))
    values = requirement.get("values", ())
    match requirement.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False


def _check_owners(causes: Causes, owners: list[Object]) -> None:
    path = "metadata.ownerReferences"
    controller = ""
    for owner in owners:
        if not owner.get("apiVersion"):
            causes.invalid(f"{path}.apiVersion", "", "version must not be empty")
        for name in ("kind", "name", "uid"):
            if not owner.get(name):
                causes.invalid(f"{path}.{name}", "", "must not be empty")
        if owner.get("controller"):
            if controller:
                causes.invalid(
                    path,
                    owners,
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controller} and {owner.get("name", "")}',
                )
            controller = owner.get("name", "") or "-"


def _check_finalizer(causes: Causes, finalizer: str) -> None:
    path = "metadata.finalizers"
    problems = names.qualified_name_problems(finalizer)
    causes.each(path, finalizer, problems)
    if not problems and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
        causes.invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified")
