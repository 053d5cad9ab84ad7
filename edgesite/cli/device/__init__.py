"""``edgesite device``: devices as the API has them."""

from edgesite.cli.device.command import COMMAND

__all__ = ["COMMAND"]
