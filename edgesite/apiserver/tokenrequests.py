"""``serviceaccounts/NAME/token``: a TokenRequest is answered with a token, and never stored.

Units   Seconds.
Errors  ApiError BadRequest, NotFound, Conflict, Invalid, Forbidden, InternalError.
State   None.
Source  authentication.k8s.io/v1 TokenRequest; limits, defaults and texts as kube-apiserver has them: 10 minutes at least, an hour
        where nothing is said, and a year for the 3607 s that the ServiceAccount admission plugin asks for (clients that read their
        token once keep working, with a time from which that is worth a warning).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver import metadata as meta
from edgesite.apiserver.accounttokens import BINDABLE, Bound
from edgesite.apiserver.call import Call, answer
from edgesite.kube import errors, json, schema_decode, times
from edgesite.kube.negotiate import negotiate
from edgesite.kube.resources import NODES, Resource

if TYPE_CHECKING:
    from edgesite.apiserver.accounttokens import AccountTokens
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.writes import Writes
    from edgesite.net.http import Response

__all__ = ["TokenRequests"]

Object = dict[str, Any]
GROUP: Final = "authentication.k8s.io"
KIND: Final = "TokenRequest"
DEFAULT_S: Final = 3600
LEAST_S: Final = 600
MOST_S: Final = 1 << 32
POD_S: Final = 3607  #: what pods ask for unless told otherwise, see `edgesite.apiserver.accountadmission`
EXTENDED_S: Final = 365 * 86400
_ROW: Final = Resource(GROUP, "v1", KIND, "tokenrequests")


class TokenRequests:
    """Answers token requests."""

    def __init__(self, registry: Registry, writes: Writes, tokens: AccountTokens) -> None:
        self._registry, self._writes, self._tokens = registry, writes, tokens

    async def create(self, call: Call) -> Response:
        """Raises ApiError."""
        options = self._writes.options(call)
        value, _ = await self._writes.body(call)
        request = self._decoded(call, meta.shape(value, _ROW))
        view = negotiate(call.request.headers.get("accept"), tables=False)
        account = self._find(call.kind.resource, call.route.namespace, call.route.name)
        write = self._writes.begin(call, options)
        write.operation = "CREATE"
        await self._registry.admissions.mutate(write, request, None)
        await self._registry.admissions.validate(write, request, None)
        spec = request["spec"]
        spec["audiences"] = spec.get("audiences") or list(self._tokens.settings.api_audiences)
        bound = self._bound(call, spec)
        life_s, warn_s = self._life(call, spec)
        now = self._registry.clock.time()
        token = ""
        if not options.dry_run:
            try:
                token = await self._tokens.issue(account, spec["audiences"], life_s, bound, warn_s)
            except OSError as exc:
                raise errors.internal(f"failed to create token: {exc}") from exc
        request["metadata"] |= {"uid": meta.uuid4(self._registry.random), "creationTimestamp": times.format_time(now)}
        ends = now + spec["expirationSeconds"]
        request["status"] = {"token": token, "expirationTimestamp": times.format_time(ends)}
        return answer(call.request, json.dumps(request), status=201, view=view, warnings=call.warnings)

    def _decoded(self, call: Call, obj: Object) -> Object:
        """The request with its defaults. Raises ApiError."""
        schemas = self._registry.scheme.schemas
        request = schema_decode.decode(schemas, GROUP, "v1", KIND, obj).object
        metadata, route = request["metadata"], call.route
        for field, wanted in (("name", route.name), ("namespace", route.namespace)):
            if metadata.get(field, wanted) != wanted:
                raise errors.bad_request(
                    f"the {field} of the provided object does not match the {field} sent on the request"
                )
            metadata[field] = wanted
        spec = request["spec"] = request.get("spec") or {}
        seconds = spec.setdefault("expirationSeconds", DEFAULT_S)
        spec.setdefault("boundObjectRef", None)
        if seconds < LEAST_S:
            raise self._invalid(seconds, "may not specify a duration less than 10 minutes")
        if seconds > MOST_S:
            raise self._invalid(seconds, "may not specify a duration larger than 2^32 seconds")
        return request

    def _invalid(self, seconds: int, why: str) -> errors.ApiError:
        cause = {
            "reason": "FieldValueInvalid",
            "message": f"Invalid value: {seconds}: {why}",
            "field": "spec.expirationSeconds",
        }
        return errors.invalid(KIND, "", [cause], GROUP)

    def _life(self, call: Call, spec: Object) -> tuple[float, float]:
        """How long the token is good, and after how long its use is worth a warning (0: never)."""
        settings = self._tokens.settings
        if settings.most_s and spec["expirationSeconds"] > settings.most_s:
            call.warnings.append(
                f"requested expiration of {spec['expirationSeconds']} seconds shortened to {int(settings.most_s)} seconds"
            )
            spec["expirationSeconds"] = int(settings.most_s)
        asked = spec["expirationSeconds"]
        if settings.extend and asked == POD_S and set(spec["audiences"]) <= set(settings.api_audiences):
            return EXTENDED_S, asked
        return asked, 0.0

    def _find(self, row: Resource, namespace: str, name: str) -> Object:
        """Raises ApiError (NotFound)."""
        found = self._registry.find(self._registry.kinds.of(row), namespace, name)
        if found is None:
            raise errors.not_found(row.plural, name, row.group)
        return found

    def _bound(self, call: Call, spec: Object) -> list[Bound]:
        """What the token is bound to, with the node of a pod. Raises ApiError."""
        reference = spec["boundObjectRef"]
        if reference is None:
            del spec["boundObjectRef"]
            return []
        kind, name, account = reference.get("kind") or "", reference.get("name") or "", call.route.name
        row = BINDABLE.get(kind)
        if row is None or "/" in (reference.get("apiVersion") or ""):  # of another group
            group, _, version = (reference.get("apiVersion") or "").rpartition("/")
            raise errors.bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        if not name:
            raise errors.bad_request("a bound object needs a name")
        found = self._find(row, call.route.namespace if row.namespaced else "", name)
        uid = found["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            why = (
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
            raise errors.conflict(kind, name, why, row.group)
        bound = [Bound(kind, name, uid)]
        if kind == "Pod":
            pod_spec = found.get("spec") or {}
            if (pod_spec.get("serviceAccountName") or "default") != account:
                raise errors.bad_request(
                    f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
                )
            bound += self._node(pod_spec.get("nodeName"))
        return bound

    def _node(self, name: str | None) -> list[Bound]:
        node = self._registry.find(self._registry.kinds.of(NODES), "", name) if name else None
        if not name:
            return []
        return [Bound("Node", name, node["metadata"]["uid"])] if node is not None else []
