"""Which signing requests are a node's own, and what requests must be like; pure.

    kubernetes.io/kubelet-serving                   the node's API: names and addresses of the node alone
    kubernetes.io/kube-apiserver-client-kubelet     the node towards the API: no names
    kubernetes.io/kube-apiserver-client             anybody towards the API, once an administrator has approved it: no names

Source  Kubernetes: "Certificates and Certificate Signing Requests" (signers: subjects, usages); KubeEdge v1.17 (169.254.30.10).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from edgesite.net import pem
from edgesite.net.pki import CLIENT, SERVER

__all__ = ["SIGNERS", "BadRequest", "Signer", "check", "is_own", "names_of"]

Object = dict[str, Any]
_GROUP: Final = ("O", "system:nodes")
_NODE: Final = "system:node:"
#: Where MetaServer listens on every node.
_EVERYWHERE: Final = ("localhost", "127.0.0.1", "::1", "169.254.30.10")


@dataclass(frozen=True, slots=True)
class Signer:
    """What one signer gives."""

    usages: tuple[str, ...]  #: as `edgesite.net.pki` has them
    required: str  #: the usage that a request must name
    takes_names: bool
    for_nodes: bool = True


SIGNERS: Final = {
    "kubernetes.io/kubelet-serving": Signer(SERVER, "server auth", True),
    "kubernetes.io/kube-apiserver-client-kubelet": Signer(CLIENT, "client auth", False),
    "kubernetes.io/kube-apiserver-client": Signer(CLIENT, "client auth", False, for_nodes=False),
}
_ALWAYS: Final = frozenset({"digital signature", "key encipherment"})


class BadRequest(ValueError):
    """The signer cannot sign this."""


def check(request: Object) -> tuple[Signer, bytes, str]:
    """Return signer, PKCS #10 and node ("" where it is not of a node) of a request for one of `SIGNERS`. Raises BadRequest."""
    spec = request["spec"]
    signer = SIGNERS[spec["signerName"]]
    usages = frozenset(spec.get("usages") or ())
    if signer.required not in usages or usages - _ALWAYS - {signer.required}:
        raise BadRequest(f"the usages must be {sorted(_ALWAYS | {signer.required})}")
    try:
        asked = base64.b64decode(spec.get("request") or "", validate=True)
        subject = pem.csr_subject(asked)
    except (ValueError, binascii.Error) as exc:
        raise BadRequest(f"the request cannot be read: {exc}") from exc
    names = [value for key, value in subject if key == "CN"]
    if not signer.for_nodes:
        if ("O", "system:masters") in subject or not names:
            raise BadRequest("the subject must have a common name, and may not be of system:masters")
        return signer, asked, ""
    if len(subject) != 2 or _GROUP not in subject or not names or not names[0].startswith(_NODE):
        raise BadRequest(f"the subject must be O=system:nodes, CN={_NODE}NAME")
    return signer, asked, names[0].removeprefix(_NODE)


def is_own(request: Object, node: str) -> bool:
    """Whether the node itself asks."""
    spec = request["spec"]
    return bool(node) and spec.get("username") == _NODE + node and _GROUP[1] in (spec.get("groups") or ())


def names_of(node: Object) -> list[str]:
    """The names and addresses under which a node may show a certificate."""
    addresses = [str(one.get("address")) for one in (node.get("status") or {}).get("addresses") or ()]
    return [node["metadata"]["name"], *addresses, *_EVERYWHERE]
