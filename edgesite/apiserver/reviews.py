"""Questions about identity and permissions: reviews are created, answered and never stored.

Errors  ApiError BadRequest, Invalid.
State   None.
Source  API reference: authentication.k8s.io/v1 (TokenReview, SelfSubjectReview), authorization.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver import metadata as meta
from edgesite.apiserver.authn import BearerTokens, User
from edgesite.apiserver.call import Call, answer
from edgesite.apiserver.nodeauth import node_of
from edgesite.apiserver.scheme import parse_body
from edgesite.kube import errors, json, times
from edgesite.kube.negotiate import body_format, negotiate
from edgesite.kube.rbac import Attributes, Rule

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind
    from edgesite.apiserver.scheme import Scheme
    from edgesite.context import Clock
    from edgesite.net.http import Response

__all__ = ["Reviews"]

Object = dict[str, Any]
AUTHORIZATION: Final = "authorization.k8s.io"
Allowed = Callable[[User, Attributes], tuple[bool, str]]
RulesOf = Callable[[User, str], Sequence[Rule]]


class Reviews:
    """Answers reviews. ``allowed`` and ``rules_of`` are set once there is somebody who knows."""

    def __init__(self, scheme: Scheme, tokens: BearerTokens, api_audiences: Sequence[str], clock: Clock) -> None:
        self._scheme = scheme
        self._tokens = tokens
        self._api_audiences = api_audiences
        self._clock = clock
        self.allowed: Allowed = lambda user, wanted: (False, "")
        self.rules_of: RulesOf = lambda user, namespace: []
        self._by_kind = {
            "TokenReview": self._token,
            "SelfSubjectReview": self._self,
            "SubjectAccessReview": self._access,
            "LocalSubjectAccessReview": self._local_access,
            "SelfSubjectAccessReview": self._own_access,
            "SelfSubjectRulesReview": self._rules,
        }

    def of(self, kind: Kind) -> Callable[[Call], Coroutine[Any, Any, Response]] | None:
        """Return who answers reviews of this kind; None if it is none."""
        if kind.resource.group not in ("authentication.k8s.io", "authorization.k8s.io"):
            return None
        return self._answer if kind.resource.kind in self._by_kind else None

    async def _answer(self, call: Call) -> Response:
        request = call.request
        view = negotiate(request.headers.get("accept"), tables=False)  # nobody has columns for them
        value = parse_body(request.body, body_format(request.headers.get("content-type"))) if request.body else {}
        obj = meta.shape(value, call.kind.resource)
        obj = self._scheme.decode(call.kind, obj, "Ignore", call.warnings)
        spec = obj.get("spec") or {}
        obj["metadata"]["creationTimestamp"] = times.format_time(self._clock.time())
        obj["status"] = self._by_kind[call.kind.resource.kind](call, spec)
        return answer(request, json.dumps(obj), status=201, view=view, warnings=call.warnings)

    def _token(self, call: Call, spec: Object) -> Object:
        token = spec.get("token") or ""
        if not token:
            raise errors.bad_request("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or ())
        found, why = self._tokens.review(token, audiences or self._api_audiences)
        if found is None:
            return {"user": {}, "error": why}
        return {"authenticated": True, "user": found.user.info(), "audiences": list(found.audiences)}

    def _self(self, call: Call, spec: Object) -> Object:
        return {"userInfo": call.user.info()}

    def _access(self, call: Call, spec: Object) -> Object:
        name, groups = spec.get("user") or "", tuple(spec.get("groups") or ())
        causes = _attribute_causes(spec)
        if not name and not groups:
            causes.append(_cause("spec.user", '""', "at least one of user or group must be specified"))
        extra = {str(key).lower(): tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
        return self._status(User(name, groups, spec.get("uid") or "", extra), spec, causes)

    def _local_access(self, call: Call, spec: Object) -> Object:
        resource, plain = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if plain is not None and resource is None:
            shown = _shown_plain(plain)
            causes = [_cause("spec.nonResourceAttributes", shown, "disallowed on this kind of request")]
            raise errors.invalid("", "", causes, AUTHORIZATION)
        namespace = (resource or {}).get("namespace") or ""
        if resource is not None and namespace != call.route.namespace:
            why = "must match metadata.namespace"
            causes = [_cause("spec.resourceAttributes.namespace", f'"{namespace}"', why)]
            raise errors.invalid("", "", causes, AUTHORIZATION)
        return self._access(call, spec)

    def _own_access(self, call: Call, spec: Object) -> Object:
        return self._status(call.user, spec, _attribute_causes(spec))

    def _status(self, user: User, spec: Object, causes: list[dict[str, str]]) -> Object:
        if causes:
            raise errors.invalid("", "", causes, AUTHORIZATION)
        resource, plain = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if plain is not None:
            wanted = Attributes(plain.get("verb") or "", plain.get("path") or "")
        else:
            given: dict[str, Any] = {key: (resource or {}).get(key) or "" for key in _RESOURCE_ATTRIBUTES}
            given["field_selector"] = _field_selector((resource or {}).get("fieldSelector") or {})
            wanted = Attributes(**given)
        allowed, reason = self.allowed(user, wanted)
        return {"allowed": allowed, **({"reason": reason} if reason else {})}

    def _rules(self, call: Call, spec: Object) -> Object:
        """What roles give; what a node may besides depends on the object, and is not said."""
        namespace = spec.get("namespace") or ""
        if not namespace:
            raise errors.bad_request("no namespace on request")
        rules = self.rules_of(call.user, namespace)
        status: Object = {
            "resourceRules": [_shown(rule, _RESOURCE_RULE) for rule in rules if rule.get("resources")],
            "nonResourceRules": [_shown(rule, _PLAIN_RULE) for rule in rules if rule.get("nonResourceURLs")],
            "incomplete": False,
        }
        if node_of(call.user) is not None:
            status |= {
                "incomplete": True,
                "evaluationError": "node authorizer does not support user rule resolution",
            }
        return status


_RESOURCE_ATTRIBUTES: Final = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
_RESOURCE_RULE: Final = ("verbs", "apiGroups", "resources", "resourceNames")
_PLAIN_RULE: Final = ("verbs", "nonResourceURLs")


def _shown(rule: Rule, fields: Sequence[str]) -> Object:
    return {field: list(rule[field]) for field in fields if rule.get(field)}


def _field_selector(given: Object) -> str:
    """The text of a selector: as it came, or of requirements for one value each."""
    if given.get("rawSelector"):
        return str(given["rawSelector"])
    parts = []
    for one in given.get("requirements") or ():
        values = list(one.get("values") or ())
        if one.get("operator") == "In" and len(values) == 1:
            parts.append(f"{one.get('key')}={values[0]}")
    return ",".join(parts)


def _attribute_causes(spec: Object) -> list[dict[str, str]]:
    resource, plain = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and plain is not None:
        why = "cannot be specified in combination with resourceAttributes"
        return [_cause("spec.nonResourceAttributes", _shown_plain(plain), why)]
    if resource is None and plain is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [_cause("spec.resourceAttributes", '"null"', why)]
    return []


def _shown_plain(plain: Object) -> str:
    return f'authorization.NonResourceAttributes{{Path:"{plain.get("path") or ""}", Verb:"{plain.get("verb") or ""}"}}'


def _cause(field: str, value: str, why: str) -> dict[str, str]:
    return {"reason": "FieldValueInvalid", "message": f"Invalid value: {value}: {why}", "field": field}
