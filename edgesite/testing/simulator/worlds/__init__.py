"""Scenarios: what happens in a world and what must hold there."""
