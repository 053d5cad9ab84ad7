"""The data plane of mappers: values go where ``pushMethod`` says, straight, not through the link between cloud and edge.

sink         what a place is that takes values, and what a value is
routes       ``pushMethod`` to sinks; each is imported once a device names it
channel      the bounded queue before one sink: batches, attempts, what is dropped
pusher       all channels of a mapper; what a worker gives values to
web          HTTP for the sinks that speak it
http, mqtt, influxdb, redis, tdengine, mysql, otlp     the sinks
"""

from edgesite.mapper.push.meters import PushMeters
from edgesite.mapper.push.pusher import Pusher

__all__ = ["PushMeters", "Pusher"]
