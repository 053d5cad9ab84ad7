"""The admission chain: built-in plugins, then those of the hooks; mutating ones before validation, validating ones after it.

Errors  ApiError passes as it is; anything else that a plugin raises is an internal error that names the plugin, and is logged.
State   The chain, made at start.
Source  Kubernetes: Admission control (order, phases).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from edgesite.hookspecs import Admission, AdmissionRequest
from edgesite.kube import errors
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.apiserver.strategies.base import Write

__all__ = ["Admissions"]

logger = logging.getLogger(__name__)
Object = dict[str, Any]


class Admissions:
    """Plugins in the order in which they are asked: built-in ones first, then by name."""

    def __init__(self, builtin: Iterable[Admission] = (), plugins: Iterable[Admission] = ()) -> None:
        chain = [*builtin, *sorted(plugins, key=lambda one: one.name)]
        self._mutating = [one for one in chain if one.mutating]
        self._validating = [one for one in chain if not one.mutating]

    async def mutate(self, write: Write, obj: Object, old: Object | None) -> None:
        """Let plugins change ``obj``. Raises ApiError."""
        await self._ask(self._mutating, write, obj, old)

    async def validate(self, write: Write, obj: Object | None, old: Object | None) -> None:
        """Let plugins refuse; ``obj`` is None for a deletion. Raises ApiError."""
        await self._ask(self._validating, write, obj, old)

    async def _ask(self, chain: list[Admission], write: Write, obj: Object | None, old: Object | None) -> None:
        for one in chain:
            try:
                if not one.wants(write.kind.resource, write.operation, write.subresource):
                    continue
                answer = one.admit(self._request(write, obj, old))
                if answer is not None:
                    await answer
            except ApiError:
                raise
            except Exception as exc:  # a plugin may raise anything
                logger.exception("admission plugin %s failed", one.name)
                raise errors.internal(f'admission plugin "{one.name}" failed') from exc

    def _request(self, write: Write, obj: Object | None, old: Object | None) -> AdmissionRequest:
        return AdmissionRequest(
            operation=write.operation,
            resource=write.kind.resource,
            subresource=write.subresource,
            namespace=write.namespace,
            name=write.name,
            user=write.user.name,
            groups=write.user.groups,
            object=obj,
            old_object=old,
            dry_run=write.dry_run,
            warnings=write.warnings,
        )
