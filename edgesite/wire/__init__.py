"""The cloud-edge protocol without I/O: messages, framing, sessions, acknowledgements, tunnel frames."""
