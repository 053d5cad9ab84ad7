"""Hook specifications: everything that a plugin may provide, on one page.

A plugin is any object named under the entry-point group ``edgesite.plugins``; it implements hooks with `impl`. Hooks run
before the event loop starts and return descriptions; none of them awaits or does I/O. The built-in features use the same hooks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    import argparse

    from edgesite.context import Context, Module, Section, Settings
    from edgesite.kube.requestinfo import RequestInfo
    from edgesite.kube.resources import Resource
    from edgesite.net.http import Request, Response

__all__ = [
    "ABI",
    "GROUP",
    "NAME",
    "Admission",
    "AdmissionRequest",
    "Command",
    "ConfigSection",
    "DriverFactory",
    "Hooks",
    "MetaServerExtension",
    "RuntimeFactory",
    "impl",
    "spec",
]

NAME = "edgesite"  #: prefix of all hooks
GROUP = "edgesite.plugins"  #: entry-point group
#: The plugin ABI: this file, `edgesite.context` and the standard library of one Python minor version (docs/plugins.md). One higher when a
#: plugin that was well before would no longer be; additions leave it as it is. Plugins require ``edgesite[plugin-abi-1]``.
ABI = 1
spec = pluggy.HookspecMarker(NAME)
impl = pluggy.HookimplMarker(NAME)


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand of ``edgesite``. ``run`` returns the exit code: 0 well, 2 bad usage or configuration, 1 else."""

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


@dataclass(frozen=True, slots=True)
class ConfigSection:
    """A section that a plugin adds to a role's configuration.

    ``role`` is "cloud" or "edge", ``path`` is dotted ("modules.example"), ``model`` is "package.module:Class", a pydantic
    model. It is imported only in the short-lived process that validates configuration.
    """

    role: str
    path: str
    model: str


@dataclass(slots=True)
class AdmissionRequest:
    """A write that is about to be stored. ``object`` may be changed in place by mutating plugins; None for a delete."""

    operation: str  #: CREATE, UPDATE, DELETE, CONNECT
    resource: Resource
    subresource: str
    namespace: str
    name: str
    user: str
    groups: tuple[str, ...]
    object: dict[str, Any] | None
    old_object: dict[str, Any] | None
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)  #: sent to the client as Warning headers


class Admission(Protocol):
    """Looks at writes before they are stored. Mutating plugins run first, then validating ones, each in order of name."""

    name: str
    mutating: bool

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool: ...

    def admit(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Change ``request.object``, add warnings, or refuse. Raises ApiError to refuse."""
        ...


class MetaServerExtension(Protocol):
    """Adds to the API that an edge serves to programs of its node, also while there is no link to the cloud.

    Called on the event loop: `admit` returns at once.
    """

    name: str

    def resources(self) -> Iterable[Resource]:
        """Kinds that `serve` answers for, in groups of their own; they appear in discovery."""
        ...

    def admit(self, info: RequestInfo, user: Any) -> None:
        """Look at any request before it is carried out, after authorisation. ``user`` is None where nobody has to show a token, else an
        `edgesite.edge.access.access.Identity`. Raises ApiError to refuse."""
        ...

    def serve(self, request: Request, info: RequestInfo, user: Any) -> Awaitable[Response | None]:
        """Answer a request for one of `resources`. None: it was streamed. Raises ApiError."""
        ...


#: Makes a pod runtime for an edge role; see `edgesite.edge.edged.runtime.Runtime` for what it returns.
RuntimeFactory = Callable[["Context"], Any]
#: Makes the driver of a device, of `edgesite.mapper.Device` and `edgesite.mapper.Host`: the class that implements `edgesite.mapper.Driver`.
DriverFactory = Callable[[Any, Any], Any]


class Specs:
    """The hooks. Methods are specifications only: pluggy reads their signatures."""

    @spec
    def edgesite_modules(self, settings: Settings) -> Iterable[type[Module]]:  # type: ignore[empty-body]
        """Return the modules that this plugin offers. Called once at start; all answers are joined, then started by need."""

    @spec
    def edgesite_commands(self) -> Iterable[Command]:  # type: ignore[empty-body]
        """Return extra subcommands. Called when the command line is parsed; a name already taken is refused."""

    @spec
    def edgesite_config_sections(self) -> Iterable[ConfigSection]:  # type: ignore[empty-body]
        """Return extra configuration sections. Called once, before configuration is read."""

    @spec
    def edgesite_admission(self, settings: Settings) -> Iterable[Admission]:  # type: ignore[empty-body]
        """Return admission plugins for the embedded API server. Called once when it starts."""

    @spec
    def edgesite_resources(self) -> Iterable[Resource]:  # type: ignore[empty-body]
        """Return kinds that the embedded API server shall serve beside its own, without a schema. Called once when it starts."""

    @spec
    def edgesite_metaserver(self, settings: Section) -> Iterable[MetaServerExtension]:  # type: ignore[empty-body]
        """Return what the MetaServer of an edge with these settings shall do besides. Called once when it starts."""

    @spec(firstresult=True)
    def edgesite_runtime(self, name: str, config: Section) -> RuntimeFactory | None:
        """Return the maker of the pod runtime called ``name`` ("cri", "process", ...), or None to let the next plugin answer."""

    @spec(firstresult=True)
    def edgesite_mapper(self, protocol: str) -> DriverFactory | None:
        """Return the driver of devices that speak ``protocol`` ("modbus"), to be run within edge roles, or None to let the next plugin answer.

        Called when a node has the first device of a protocol, in a worker thread: a driver's library may be imported here.
        """


class Hooks(Protocol):
    """How modules call hooks: guarded, so that one plugin's failure is reported by name and stops nobody."""

    def admission(self, settings: Settings) -> list[Admission]: ...

    def resources(self) -> list[Resource]: ...

    def metaserver(self, settings: Section) -> list[MetaServerExtension]: ...

    def runtime(self, name: str, config: Section) -> RuntimeFactory | None: ...

    def mapper(self, protocol: str) -> DriverFactory | None: ...

    def loaded(self) -> Mapping[str, str]:
        """Plugins by name, with where each came from."""
        ...
