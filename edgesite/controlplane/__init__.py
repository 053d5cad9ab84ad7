"""Scheduler and workload controllers for use with the embedded API server."""
