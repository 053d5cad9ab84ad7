"""Where things are on a host with KubeEdge, and reading what is there.

Errors  KeadmError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.cli.keadm.host import Host

__all__ = ["CLOUDCORE_YAML", "CONFIG", "EDGECORE_YAML", "KUBECONFIG", "MANAGEMENT", "ROOT_KUBECONFIG", "read_document"]

MANAGEMENT: Final = "/etc/kubeedge"
CONFIG: Final = "/etc/kubeedge/config"
CLOUDCORE_YAML: Final = "/etc/kubeedge/config/cloudcore.yaml"
EDGECORE_YAML: Final = "/etc/kubeedge/config/edgecore.yaml"
KUBECONFIG: Final = "/etc/kubeedge/config/cloudcore.kubeconfig"  #: our copy, which the unit's user may read
ROOT_KUBECONFIG: Final = "/root/.kube/config"
LOGS: Final = "/var/log/kubeedge"
STATE: Final = "/var/lib/kubeedge"
PROGRAMS: Final = "/usr/local/bin"


def read_document(host: Host, path: str) -> dict[str, Any]:
    """The YAML mapping in a file; empty if there is no file. Raises KeadmError."""
    import yaml

    try:
        text = host.path(path).read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise KeadmError(f"{path}: {exc}") from None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise KeadmError(f"{path} is no YAML: {exc}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise KeadmError(f"{path} holds no mapping")
    return found
