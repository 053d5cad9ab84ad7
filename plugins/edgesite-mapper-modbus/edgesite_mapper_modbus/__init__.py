"""Modbus machines as devices: TCP and serial lines, coils and registers."""
