"""The embedded broker: `edgesite.wire.mqtt` on sockets and a SQLite file.

settings   configuration, password and ACL files to what the core takes
server     connections
journal    durable sessions and retained messages on disk
"""
