"""``edgesite plugins``: lists, installs, removes and checks plugins."""

from edgesite.cli.plugins.command import COMMAND

__all__ = ["COMMAND"]
