"""What jobs of the cloud want of this node: images pulled ahead of time, upgrades."""
