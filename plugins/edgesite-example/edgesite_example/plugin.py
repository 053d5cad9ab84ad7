"""The hooks of this plugin. Nothing heavy is imported here: the file is loaded by every edgesite process."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgesite.hookspecs import Admission, Command, ConfigSection, MetaServerExtension, impl

if TYPE_CHECKING:
    from edgesite.context import Module, Section, Settings


@impl
def edgesite_modules(settings: Settings) -> Iterable[type[Module]]:
    from edgesite_example.greeter import Greeter

    return [Greeter]


@impl
def edgesite_config_sections() -> Iterable[ConfigSection]:
    return [ConfigSection(role="edge", path="modules.greeter", model="edgesite_example.config:GreeterSection")]


@impl
def edgesite_admission(settings: Settings) -> Iterable[Admission]:
    from edgesite_example.tags import RequireTags

    return [RequireTags()]


@impl
def edgesite_metaserver(settings: Section) -> Iterable[MetaServerExtension]:
    from edgesite_example.nodeapi import NodeApi

    return [NodeApi(str(settings.modules.greeter.greeting))]


@impl
def edgesite_commands() -> Iterable[Command]:
    return [Command("greet", "Say hello, as an example of a plugin's command.", _configure, _greet)]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="whom to greet")


def _greet(arguments: argparse.Namespace) -> int:
    print(f"Hello, {arguments.name}!")
    return 0
