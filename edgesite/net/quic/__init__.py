"""Messages over QUIC between two ends of ours: the second transport of the link. Needs the extra ``quic`` (aioquic).

    core       one connection without I/O: mutual TLS 1.3, a receive window of fixed size, stateless resets
    framing    messages in a stream, and the greeting that opens a connection
    socket     `QuicSocket`: drives a connection; the same interface as `edgesite.net.websocket.WebSocket`
    server     `QuicServer`: one UDP port for many connections; validates addresses, limits handshakes
    client     `connect`, and `keep_path`, which moves a connection to another address of ours

Import these only where QUIC is configured: aioquic costs some 16 MiB.

A connection has two lanes: lane 0 (stream 0, both ways) for what must not wait, lane 1 for the bulk (stream 2 from the client,
stream 3 from the server). Loss or congestion of one lane's data does not hold up the other. ALPN is ``edgesite-link/1``.

Source  RFC 9000 (QUIC), RFC 9001 (TLS), RFC 9002 (loss). KubeEdge's own QUIC is a draft of 2019 that nothing else speaks.
"""
