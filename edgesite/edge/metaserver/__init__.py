"""The MetaServer: the Kubernetes API on an edge node, for programs there; what was read goes on being served without a link."""
