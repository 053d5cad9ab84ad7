"""Ending pods in order when the host is shut down: logind's inhibitor lock over D-Bus, and who goes first."""
