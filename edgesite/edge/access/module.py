"""The module ``access``: provides `TokenReviewer` and `Access` to the other modules of the edge.

Reviews go to the cloud over the hub; a cloud that is not ours does not know them, and is not asked. What the cloud has sent of service
accounts (`local`) is read from the store when a decision is asked for: it is rarely needed, and then by few.

Source  KubeEdge v1.14 (objects of type serviceaccountaccess); authentication.k8s.io/v1, authorization.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.edge.access.local import decide
from edgesite.edge.edgehub.link import Link
from edgesite.edge.metamanager.meta import Meta
from edgesite.edge.metamanager.service import HUB, object_in_answer
from edgesite.kube import rbac
from edgesite.kube.errors import ApiError, unauthorized, unavailable
from edgesite.kube.rbac import Attributes, Verdict
from edgesite.wire import resource
from edgesite.wire.message import MessageMaker, Operation

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["AccessModule"]

Object = dict[str, Any]
ANSWER_S: Final = 10.0
STORED: Final = "serviceaccountaccess"
_NAMESPACE: Final = "default"


class AccessModule:
    """See the module docstring."""

    name: ClassVar[str] = "access"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"metamanager"})
    section: ClassVar[str] = ""

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        """Serve until cancelled."""
        access = _Access(ctx)
        ctx.services.provide(TokenReviewer, access)  # type: ignore[type-abstract]
        ctx.services.provide(Access, access)  # type: ignore[type-abstract]
        ctx.ready()
        await anyio.sleep_forever()


class _Access:
    """Implements both protocols."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)

    async def review(self, token: str, audiences: Sequence[str] = ()) -> Identity:
        """Raises ApiError."""
        status = await self._ask(
            "tokenreview", "TokenReview", "authentication", {"token": token, "audiences": [*audiences]}
        )
        if not status.get("authenticated"):
            raise unauthorized()
        return Identity.of(status.get("user") or {}, status.get("audiences") or ())

    async def decide(self, user: Identity, wanted: Attributes) -> Verdict:
        """Raises ApiError."""
        spec: Object = {"user": user.name, "groups": list(user.groups)}
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra.items()}
        spec |= _asked(wanted)
        status = await self._ask("subjectaccessreview", "SubjectAccessReview", "authorization", spec)
        return Verdict(bool(status.get("allowed")), str(status.get("reason") or ""))

    async def decide_here(self, user: Identity, wanted: Attributes) -> Verdict | None:
        """Raises ApiError when the disk fails."""
        account = rbac.split_account(user.name)
        if account is None:
            return None
        stored = await self._ctx.services.get(Meta).get(STORED, *account)  # type: ignore[type-abstract]
        return None if stored is None else decide(stored, user.name, user.uid, user.groups, wanted)

    async def _ask(self, type_: str, kind: str, group: str, spec: Object) -> Object:
        """Return the status of a review. Raises ApiError."""
        link = self._ctx.services.find(Link)  # type: ignore[type-abstract]
        if link is None or not link.connected:
            raise unavailable("there is no link to the cloud")
        if not link.own_peer:
            raise unavailable("the cloud does not answer reviews of edges")
        content = {"kind": kind, "apiVersion": f"{group}.k8s.io/v1", "spec": spec}
        path = resource.build(_NAMESPACE, type_, self._ctx.node_name)
        request = self._maker.make("access", "meta", Operation.QUERY, path, content)
        try:
            answer = await self._ctx.bus.call(HUB, request, timeout_s=ANSWER_S)
        except (TimeoutError, LookupError) as exc:
            raise unavailable("the cloud did not answer a review") from exc
        try:
            return object_in_answer(answer).get("status") or {}
        except ApiError as exc:
            raise unavailable(f"the cloud did not review: {exc.message}") from exc


def _asked(wanted: Attributes) -> Object:
    if not wanted.is_resource:
        return {"nonResourceAttributes": {"verb": wanted.verb, "path": wanted.path}}
    named = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    attributes: Object = {key: value for key in named if (value := getattr(wanted, key))}
    if wanted.field_selector:
        attributes["fieldSelector"] = {"rawSelector": wanted.field_selector}
    return {"resourceAttributes": attributes}
