"""What a pod's resolv.conf and /etc/hosts say.

Source  Kubernetes: "DNS for Services and Pods" (dnsPolicy, dnsConfig, setHostnameAsFQDN, hostnameOverride), "Adding entries to Pod /etc/hosts".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import DnsConfig

__all__ = [
    "MAX_KERNEL_NAME",
    "full_name",
    "hosts_file",
    "kernel_name",
    "parse_resolv_conf",
    "pod_dns",
    "pod_hostname",
    "wants_cluster",
]

MAX_SERVERS: Final = 3  #: More are not read by the C library.
MAX_SEARCHES: Final = 32
MAX_HOSTNAME: Final = 63
MAX_KERNEL_NAME: Final = 64
#: first lines by which programs (and Kubernetes' tests) know such a file
_HOSTS_OF_POD: Final = "# Kubernetes-managed hosts file."
_HOSTS_OF_NODE: Final = "# Kubernetes-managed hosts file (host network)."


def parse_resolv_conf(text: str) -> DnsConfig:
    """Read a resolv.conf; lines that mean nothing here are passed over."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        word, *rest = line.split("#", 1)[0].split(";", 1)[0].split() or [""]
        if word == "nameserver" and rest:
            servers.append(rest[0])
        elif word == "search":
            searches = [one.rstrip(".") or "." for one in rest]
        elif word == "options":
            options = rest
    return DnsConfig(tuple(servers), tuple(searches), tuple(options))


def pod_dns(pod: Pod, host: DnsConfig, cluster_dns: Sequence[str], cluster_domain: str) -> DnsConfig:
    """Return what the pod's resolv.conf shall hold. Without a cluster DNS, ClusterFirst means the host's."""
    policy = pod.spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and pod.host_network:
        policy = "Default"
    if policy == "None":
        base = DnsConfig()
    elif policy == "Default" or not cluster_dns:
        base = host
    else:
        base = _cluster(pod, host, cluster_dns, cluster_domain)
    extra = pod.spec.get("dnsConfig") or {}
    servers = _unique((*base.servers, *(extra.get("nameservers") or ())))
    searches = _unique((*base.searches, *(extra.get("searches") or ())))
    options = {name.partition(":")[0]: name for name in base.options}
    for option in extra.get("options") or ():
        name, value = option.get("name", ""), option.get("value")
        options[name] = name if value is None else f"{name}:{value}"
    return DnsConfig(servers[:MAX_SERVERS], searches[:MAX_SEARCHES], tuple(options.values()))


def wants_cluster(pod: Pod) -> bool:
    """Whether a pod asks for the cluster's DNS."""
    policy = pod.spec.get("dnsPolicy") or "ClusterFirst"
    return policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.host_network)


def _cluster(pod: Pod, host: DnsConfig, servers: Sequence[str], domain: str) -> DnsConfig:
    searches = (f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain) if domain else ()
    return DnsConfig(tuple(servers), (*searches, *host.searches), ("ndots:5",))


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def pod_hostname(pod: Pod, node_name: str) -> str:
    """Return the short host name of the pod, as /etc/hosts has it."""
    if override := pod.spec.get("hostnameOverride"):
        return str(override)
    if pod.host_network:
        return node_name
    name = pod.spec.get("hostname") or pod.name
    return name[:MAX_HOSTNAME].rstrip("-.")


def full_name(pod: Pod, hostname: str, cluster_domain: str) -> str:
    """Return the pod's name in the cluster's DNS; "" for one without a subdomain."""
    subdomain = pod.spec.get("subdomain")
    if not subdomain or not cluster_domain or pod.spec.get("hostnameOverride"):
        return ""
    return f"{hostname}.{subdomain}.{pod.namespace}.svc.{cluster_domain}"


def kernel_name(pod: Pod, node_name: str, cluster_domain: str) -> str:
    """Return what ``hostname`` says in the pod's containers; `MAX_KERNEL_NAME` is what the kernel takes."""
    hostname = pod_hostname(pod, node_name)
    full = full_name(pod, hostname, cluster_domain) if pod.spec.get("setHostnameAsFQDN") else ""
    return full or hostname


def hosts_file(pod: Pod, ips: Sequence[str], hostname: str, cluster_domain: str, host_text: str) -> str:
    """Return the pod's /etc/hosts; ``host_text`` is the node's own, which pods in its network get."""
    if pod.host_network:
        lines = [_HOSTS_OF_NODE, host_text.rstrip("\n")]
    else:
        lines = [
            _HOSTS_OF_POD,
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "fe00::0\tip6-localnet",
            "fe00::0\tip6-mcastprefix",
            "fe00::1\tip6-allnodes",
            "fe00::2\tip6-allrouters",
        ]
        full = full_name(pod, hostname, cluster_domain)
        lines += [f"{ip}\t{full}\t{hostname}" if full else f"{ip}\t{hostname}" for ip in ips]
    aliases: list[dict[str, Any]] = pod.spec.get("hostAliases") or []
    if aliases:
        lines += ["", "# From the pod's hostAliases."]
        lines += ["\t".join((one.get("ip", ""), *(one.get("hostnames") or ()))) for one in aliases]
    return "\n".join(lines) + "\n"
