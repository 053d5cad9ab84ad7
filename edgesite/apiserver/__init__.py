"""The embedded API server: HTTP front, authentication, authorisation, admission, registry, watch, subresources."""
