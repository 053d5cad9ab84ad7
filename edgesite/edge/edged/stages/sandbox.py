"""The pod's sandbox: made when there is none that is ready, with its /etc/hosts."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgesite.edge.edged import dns
from edgesite.edge.edged.clusterfacts import ClusterUnknown
from edgesite.edge.edged.events import NORMAL, WARNING
from edgesite.edge.edged.runtime import Isolation, RuntimeFault, RuntimeUnavailable, SandboxConfig
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.specs import host_ports, sandbox_config
from edgesite.edge.edged.stages.admission import ports_collide
from edgesite.edge.edged.state import PodState, StageWait
from edgesite.edge.edged.together import together
from edgesite.edge.edged.userranges import NoRange, has_own_users

__all__ = ["SandboxStage"]

RETRY_S: Final = 5.0
PORTS_S: Final = 0.05
KEPT_OLD: Final = 1
NO_CLUSTER_DNS: Final = (
    'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. '
    'Falling back to "Default" policy.'
)


class SandboxStage:
    def __init__(self, services: PodServices) -> None:
        self._services = services
        self._stopped: set[str] = set()  # ids; one that is not ready may still hold its network until it is stopped

    async def setup(self, state: PodState) -> None:
        sandbox = state.sandbox
        if sandbox is None:
            await self._make(state)
        elif state.sandbox_config is None:  # found after a restart of edgesite
            state.sandbox_config = await self._config(state, sandbox.attempt)
            state.ips = (await self._services.runtime.sandbox_status(sandbox.id)).ips
            await self._write_hosts(state)

    async def teardown(self, state: PodState) -> None:
        """Stop sandboxes first, then forget them: whatever is left after a crash is still listed."""
        runtime = self._services.runtime
        await self.stop(state)
        for sandbox in tuple(state.sandboxes):
            await runtime.remove_sandbox(sandbox.id)
            state.sandboxes.remove(sandbox)
        state.sandbox_config, state.ips = None, ()
        await self._services.cgroups.remove(state.pod.uid)

    async def stop(self, state: PodState) -> None:
        """Release what a pod that has come to its end does not need; its containers stay for their logs."""
        running = [one.id for one in state.sandboxes if one.id not in self._stopped]
        await together(*(functools.partial(self._services.runtime.stop_sandbox, one) for one in running))
        self._stopped.update(running)

    def _wait_for_ports(self, state: PodState) -> None:
        """Let a pod that has just ended give up its ports of the host first: its sandbox is still being stopped. Raises StageWait."""
        wanted = host_ports(state.pod)
        for other in self._services.pods() if wanted else ():
            if other.released and any(ports_collide(one, two) for one in wanted for two in host_ports(other.pod)):
                raise StageWait(f"the ports of pod {other.pod.key} are being released", PORTS_S)

    async def _make(self, state: PodState) -> None:
        self._wait_for_ports(state)
        runtime, events = self._services.runtime, self._services.events
        attempt = 0
        if state.sandboxes:
            attempt = state.sandboxes[0].attempt + 1
            events.report(
                state.pod.reference(),
                NORMAL,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            )
            await self.stop(state)
        handler = await self._handler(state)
        if has_own_users(state.pod) and not await runtime.user_namespaces(handler):
            raise self._failed(state, ValueError(f'runtime handler "{handler}" does not support user namespaces'))
        config = replace(await self._config(state, attempt), runtime_handler=handler)
        if len(config.hostname) > dns.MAX_KERNEL_NAME:
            why = f"a name of {len(config.hostname)} characters is longer than the {dns.MAX_KERNEL_NAME} that the kernel takes"
            raise self._failed(state, ValueError(f"setHostnameAsFQDN: {config.hostname}: {why}"))
        self._tell_of_dns(state)
        await self._services.cgroups.before_sandbox(state.pod)
        try:
            sandbox_id = await runtime.run_sandbox(config)
            status = await runtime.sandbox_status(sandbox_id)
        except RuntimeUnavailable:
            raise
        except RuntimeFault as exc:
            state.unsure = True
            raise self._failed(state, exc) from exc
        state.sandboxes.insert(0, status)
        state.sandbox_config, state.ips = config, status.ips
        self._forget_old(state)
        await self._services.cgroups.after_sandbox(state.pod)
        await self._write_hosts(state)

    def _tell_of_dns(self, state: PodState) -> None:
        """Say that a pod which wants the cluster's DNS gets the host's."""
        services, pod = self._services, state.pod
        wants = dns.wants_cluster(pod) and services.runtime.isolation is Isolation.CONTAINER
        if wants and not services.settings.cluster_dns:
            text = f'pod: "{pod.name}_{pod.namespace}({pod.uid})". {NO_CLUSTER_DNS}'
            services.events.report(pod.reference(), WARNING, "MissingClusterDNS", text)

    async def _handler(self, state: PodState) -> str:
        """What the runtime calls the pod's runtime class. Raises StageWait."""
        try:
            return await self._services.cluster.handler(state.pod.spec.get("runtimeClassName") or "")
        except ClusterUnknown as exc:
            raise self._failed(state, exc) from exc

    def _failed(self, state: PodState, why: Exception) -> StageWait:
        text = f"Failed to create pod sandbox: {why}"
        self._services.events.report(state.pod.reference(), WARNING, "FailedCreatePodSandBox", text)
        return StageWait(text, RETRY_S)

    def _forget_old(self, state: PodState) -> None:
        """Let go of sandboxes before the last: each reboot makes one. The last holds how its containers ended."""
        old = state.sandboxes[1 + KEPT_OLD :]
        del state.sandboxes[1 + KEPT_OLD :]
        for sandbox in old:
            state.containers = {key: one for key, one in state.containers.items() if one.sandbox_id != sandbox.id}
            self._services.beside(self._services.runtime.remove_sandbox, sandbox.id)

    async def _config(self, state: PodState, attempt: int) -> SandboxConfig:
        """Raises StageWait."""
        config = self._config_of(state, attempt)
        if not has_own_users(state.pod):
            return config
        try:
            users = await self._services.users.give(state.pod.uid)
        except (NoRange, OSError) as exc:
            raise self._failed(state, exc) from exc
        namespaces = replace(config.security.namespaces, users=users)
        return replace(config, security=replace(config.security, namespaces=namespaces))

    def _config_of(self, state: PodState, attempt: int) -> SandboxConfig:
        services, pod = self._services, state.pod
        settings = services.settings
        return sandbox_config(
            pod,
            attempt,
            node_name=services.node.name,
            # In the host's network the name is the host's too, and a runtime refuses to set it.
            hostname="" if pod.host_network else dns.kernel_name(pod, services.node.name, settings.cluster_domain),
            log_directory=str(services.paths.pod_logs(pod)),
            dns=dns.pod_dns(pod, services.node.dns, settings.cluster_dns, settings.cluster_domain),
            cgroup_parent=services.cgroups.parent(pod),
        )

    async def _write_hosts(self, state: PodState) -> None:
        services, pod = self._services, state.pod
        hostname = dns.pod_hostname(pod, services.node.name)
        text = dns.hosts_file(pod, state.ips, hostname, services.settings.cluster_domain, services.node.hosts_text)
        await services.threads.run(_write, services.paths.etc_hosts(pod.uid), text)


def _write(path: Path, text: str) -> None:
    """In place, not by replacing: containers have this very file mounted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
