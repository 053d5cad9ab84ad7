"""The edge end of the stream tunnel: gives the cloud a way to this node's kubelet API."""
