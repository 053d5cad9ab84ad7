"""Deletes what is owned by nothing any more, and orders deletions by ownership."""
