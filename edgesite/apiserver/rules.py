"""Rules and RuleEndpoints in the embedded API: their schemas, and that nothing carries them out.

They are kept as KubeEdge's cloud keeps them, so that manifests apply and a router may come as a plugin; whoever makes one is told that
edgesite brings none.

Errors  None raised.
State   None.
Source  KubeEdge v1.12 to v1.23, rules.kubeedge.io/v1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.kube.rulecrds import GROUP

if TYPE_CHECKING:
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.kube.customresources import CustomKind
    from edgesite.kube.resources import Resource
    from edgesite.kube.schema import Schemas

__all__ = ["RuleAdmission", "rule_schemas"]

_SAID: Final = "edgesite brings no router: the rule is kept, and nothing carries messages by it unless a plugin does"


def rule_schemas(schemas: Schemas) -> dict[tuple[str, str], CustomKind]:
    """Return the schemas of both kinds, by plural and version."""
    from edgesite.kube.customresources import kinds_of
    from edgesite.kube.rulecrds import definitions

    found = [one for definition in definitions() for one in kinds_of(definition, schemas)]
    return {(one.row.plural, one.row.version): one for one in found}


class RuleAdmission:
    """Tells who makes a Rule that nothing of edgesite's acts upon it."""

    name = "Rules"
    mutating = False

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.group == GROUP and resource.kind == "Rule" and operation == "CREATE" and not subresource

    def admit(self, request: AdmissionRequest) -> None:
        request.warnings.append(_SAID)
