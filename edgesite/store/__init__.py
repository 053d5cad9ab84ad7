"""Revisioned key-value store on SQLite: group commit, watch cache, compaction."""
