"""The dynamiccontroller: answers the MetaServers of edges from the API, and tells them what they watch."""
