"""SyncController: what every edge was last known to hold, and the proof that it is what it should hold."""
