"""Kinds that are views of another version's objects: how they go into the store and come out.

Errors  None.
State   None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Conversion
    from edgesite.kube.resources import Resource

__all__ = ["conversions"]


def conversions(row: Resource, stored: Resource) -> tuple[Conversion | None, Conversion | None]:
    """Return (to the store, from the store); Nones where both forms are the same."""
    if row is stored:
        return None, None

    def into(obj: dict[str, Any]) -> dict[str, Any]:
        from edgesite.kube import conversion  # few sites ever see the other forms

        return conversion.to_storage(row, obj)

    def out(obj: dict[str, Any]) -> dict[str, Any]:
        from edgesite.kube import conversion

        return conversion.from_storage(row, obj)

    return into, out
