"""MQTT at the edge: the module ``eventbus``, its own broker and its client of an external one."""
