"""KubeEdge as one Python program: every part of it is a module that a plugin provides."""

__version__ = "0.1.0"
