"""OPC UA servers as devices: security policies, users and certificates, values by node id."""
