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
from edgesite.apiserver.authz import Attributes
from edgesite.apiserver.call import Call, answer
from edgesite.apiserver.scheme import parse_body
from edgesite.kube import errors, json, times
from edgesite.kube.negotiate import body_format, negotiate

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind
    from edgesite.apiserver.scheme import Scheme
    from edgesite.context import Clock
    from edgesite.net.http import Response

__all__ = ["Reviews"]

Object = dict[str, Any]
Allowed = Callable[[User, Attributes], tuple[bool, str]]
_ALL: Final = ("*",)


class Reviews:
    """Answers reviews. ``allowed`` is set once the front exists that knows the authorizers."""

    def __init__(self, scheme: Scheme, tokens: BearerTokens, api_audiences: Sequence[str], clock: Clock) -> None:
        self._scheme = scheme
        self._tokens = tokens
        self._api_audiences = api_audiences
        self._clock = clock
        self.allowed: Allowed = lambda user, wanted: (False, "")
        self._by_kind = {
            "TokenReview": self._token,
            "SelfSubjectReview": self._self,
            "SubjectAccessReview": self._access,
            "LocalSubjectAccessReview": self._access,
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
            raise errors.invalid("TokenReview", "", [_required("spec.token")], "authentication.k8s.io")
        audiences = tuple(spec.get("audiences") or ())
        found, why = self._tokens.review(token, audiences or self._api_audiences)
        if found is None:
            return {"user": {}, "error": why}
        return {"authenticated": True, "user": found.user.info(), "audiences": list(found.audiences)}

    def _self(self, call: Call, spec: Object) -> Object:
        return {"userInfo": call.user.info()}

    def _access(self, call: Call, spec: Object) -> Object:
        name, groups = spec.get("user") or "", tuple(spec.get("groups") or ())
        if not name and not groups:
            raise errors.invalid(call.kind.resource.kind, "", [_required("spec.user")], "authorization.k8s.io")
        return self._status(User(name, groups, spec.get("uid") or ""), call, spec)

    def _own_access(self, call: Call, spec: Object) -> Object:
        return self._status(call.user, call, spec)

    def _status(self, user: User, call: Call, spec: Object) -> Object:
        resource, plain = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if (resource is None) is (plain is None):
            cause = {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
                "field": "spec.resourceAttributes",
            }
            raise errors.invalid(call.kind.resource.kind, "", [cause], "authorization.k8s.io")
        if plain is not None:
            wanted = Attributes(plain.get("verb") or "", plain.get("path") or "")
        else:
            given: dict[str, Any] = {key: (resource or {}).get(key) or "" for key in _RESOURCE_ATTRIBUTES}
            wanted = Attributes(**{**given, "namespace": call.route.namespace or given["namespace"]})
        allowed, reason = self.allowed(user, wanted)
        return {"allowed": allowed, **({"reason": reason} if reason else {})}

    def _rules(self, call: Call, spec: Object) -> Object:
        """What is allowed wholesale; what depends on the object is not said, hence incomplete."""
        if call.user.is_master:
            return {
                "resourceRules": [{"verbs": _ALL, "apiGroups": _ALL, "resources": _ALL}],
                "nonResourceRules": [{"verbs": _ALL, "nonResourceURLs": _ALL}],
                "incomplete": False,
            }
        return {"resourceRules": [], "nonResourceRules": [], "incomplete": True}


_RESOURCE_ATTRIBUTES: Final = ("verb", "group", "version", "resource", "subresource", "namespace", "name")


def _required(field: str) -> dict[str, str]:
    return {"reason": "FieldValueRequired", "message": "Required value", "field": field}
