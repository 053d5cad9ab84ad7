"""Tasks that jobs give to nodes: upgrades of edges (NodeUpgradeJob) and images pulled ahead of time (ImagePrePullJob)."""
