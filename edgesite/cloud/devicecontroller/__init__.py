"""devicecontroller: devices to the node that they are bound to, and what they report into their status."""
