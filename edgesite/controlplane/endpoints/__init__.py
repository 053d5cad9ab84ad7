"""Who serves a Service: Endpoints and EndpointSlices from the pods that its selector matches."""
