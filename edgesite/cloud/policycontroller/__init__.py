"""What the service accounts of edge nodes may do, sent to these nodes so that they can decide without the cloud."""
