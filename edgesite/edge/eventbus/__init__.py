"""MQTT at the edge: the module ``eventbus``, its own broker and its client of an external one.

module         the module: which brokers there are, what the bus and the brokers tell each other
topics         what is subscribed to, and who gets what
subscriptions  topics that the cloud subscribed to, on disk
incoming       publications on their way to other modules
internal       the embedded broker (`broker`)
external       the connection to a broker of others, by paho-mqtt in a thread (`pahoclient`)
"""

from edgesite.edge.eventbus.interest import Interest

__all__ = ["Interest"]
