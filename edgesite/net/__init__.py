"""Bytes on the move: HTTP/1.1, WebSocket, TLS, certificates, and the real network that `ctx.net` hands out."""
