"""Certificate signing requests: who asks is the API server's to say; approval, certificate and spec each have their own door.

Errors  ApiError.
State   None.
Source  API reference: CertificateSigningRequest (spec, subresources approval and status).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgesite.apiserver.strategies.base import Strategy, Write

__all__ = ["SigningRequestStrategy"]

Object = dict[str, Any]
_JUDGED: Final = frozenset({"Approved", "Denied"})
#: The cloud role's own modules: they speak for edge nodes whose certificate they have seen, and say for which.
_MODULES: Final = "system:edgesite"


@dataclass(slots=True)
class SigningRequestStrategy(Strategy):
    """See the module docstring."""

    def prepare_create(self, write: Write, obj: Object) -> None:
        Strategy.prepare_create(self, write, obj)
        spec = obj.setdefault("spec", {})
        if write.user.name != _MODULES or not spec.get("username"):
            info = write.user.info()
            for member in ("username", "uid", "groups", "extra"):
                spec.pop(member, None)
                if info.get(member):
                    spec[member] = info[member]

    def prepare_status(self, write: Write, old: Object, new: Object) -> None:
        """The signer's door: certificate and failures, not the judgement."""
        Strategy.prepare_status(self, write, old, new)
        told, held = (list((one.get("status") or {}).get("conditions") or ()) for one in (new, old))
        kept = [one for one in held if one.get("type") in _JUDGED]
        conditions = kept + [one for one in told if one.get("type") not in _JUDGED]
        _set_conditions(new, conditions)

    def prepare_other(self, write: Write, old: Object, new: Object) -> None:
        """The approver's door: the conditions, of which nobody takes back a judgement, and nothing else."""
        told = list((new.get("status") or {}).get("conditions") or ())
        held = list((old.get("status") or {}).get("conditions") or ())
        Strategy.prepare_update(self, write, old, new)
        new["spec"] = old["spec"]
        kept = [one for one in held if one.get("type") in _JUDGED]
        known = {one["type"] for one in kept}
        new["status"] = dict(old.get("status") or {})
        _set_conditions(new, kept + [one for one in told if one.get("type") not in known])

    def prepare_update(self, write: Write, old: Object, new: Object) -> None:
        Strategy.prepare_update(self, write, old, new)
        new["spec"] = old["spec"]


def _set_conditions(obj: Object, conditions: list[Object]) -> None:
    status = obj.setdefault("status", {})
    if conditions:
        status["conditions"] = conditions
    else:
        status.pop("conditions", None)
