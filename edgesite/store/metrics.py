"""Metrics of the store. Without a registry nothing is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["StoreMetrics"]

LATENCIES_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class StoreMetrics:
    """What commits cost: number, size, latency, bytes, failures."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._on = registry is not None
        if registry is None:
            return
        from prometheus_client import Counter, Histogram

        self._size = Histogram(
            "edgesite_store_batch_writes", "Writes that shared one commit.", buckets=SIZES, registry=registry
        )
        self._latency = Histogram(
            "edgesite_store_commit_seconds",
            "Time of one commit, fsync included.",
            buckets=LATENCIES_S,
            registry=registry,
        )
        self._bytes = Counter("edgesite_store_value_bytes", "Bytes of keys and values committed.", registry=registry)
        self._failures = Counter("edgesite_store_commit_failures", "Commits that the disk refused.", registry=registry)

    def committed(self, writes: int, size_bytes: int, seconds: float) -> None:
        if self._on:
            self._size.observe(writes)
            self._latency.observe(seconds)
            self._bytes.inc(size_bytes)

    def failed(self) -> None:
        if self._on:
            self._failures.inc()
