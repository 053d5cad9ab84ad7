"""Reads a YAML configuration file and remembers the line of every member, so that errors can name it.

Errors  BadFile: not readable, no YAML, or no mapping at the top; the message names file and line.
"""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["BadFile", "Lines", "parse"]

#: Line (from 1) by path; a path is a tuple of member names and list positions.
Lines = dict[tuple[str | int, ...], int]


class BadFile(ValueError):
    """The file cannot be read as configuration."""


def parse(text: str, name: str) -> tuple[dict[str, Any], Lines]:
    """Return the values and their lines. ``name`` is for messages. Raises BadFile."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        lines: Lines = {}
        if node is None:
            return {}, lines
        if not isinstance(node, yaml.MappingNode):
            raise BadFile(f"{name}:1: the file must be a mapping with apiVersion and kind at its top")
        _collect(node, (), lines, name)
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise BadFile(f"{where}: {exc.problem or exc.context or 'no YAML'}") from None
    except yaml.YAMLError as exc:
        raise BadFile(f"{name}: {exc}") from None
    finally:
        loader.dispose()
    return value, lines


def _collect(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            text = str(key.value)
            if text in seen:
                raise BadFile(f"{name}:{key.start_mark.line + 1}: {text} is given twice")
            seen.add(text)
            lines[(*path, text)] = key.start_mark.line + 1
            _collect(value, (*path, text), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _collect(value, (*path, index), lines, name)
