"""Plugin ``apiserver``: the embedded Kubernetes API server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.context import Module, Settings


@impl
def edgesite_modules(settings: Settings) -> Iterable[type[Module]]:
    if settings.cloud is None or settings.api is None or not settings.api.get("enable", True):
        return []
    from edgesite.apiserver.module import ApiServerModule

    return [ApiServerModule]
