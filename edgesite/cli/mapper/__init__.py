"""``edgesite mapper``: begins the project of a mapper."""

from edgesite.cli.mapper.command import COMMAND

__all__ = ["COMMAND"]
