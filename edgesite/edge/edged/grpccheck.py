"""Asks a program's gRPC health service whether it serves.

Errors  OSError when nothing answers or the answer is no health check's. The caller sets the deadline.
Source  grpc.health.v1 (Health/Check, SERVING is 1); core/v1 GRPCAction.
"""

from __future__ import annotations

from typing import Final

from edgesite.context import Net
from edgesite.kube.protowire import Messages, WireFormatError, decode, encode
from edgesite.net.grpc import Channel, GrpcError

__all__ = ["grpc_health"]

_PATH: Final = "/grpc.health.v1.Health/Check"
_WORDS: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_HEALTH: Final = Messages(
    """
HealthCheckRequest: service string = 1
HealthCheckResponse: status int32 = 1
"""
)


async def grpc_health(net: Net, address: str, service: str, timeout_s: float) -> str:
    """Return the word of the service at ``address`` (host:port): "SERVING" when it is well. Raises OSError."""
    channel = Channel(net, address, user_agent="kube-probe/1.36")
    try:
        data = await channel.call(
            _PATH, encode(_HEALTH["HealthCheckRequest"], {"service": service}), timeout_s=timeout_s
        )
        number = decode(_HEALTH["HealthCheckResponse"], data).get("status", 0)
    except GrpcError as exc:
        raise OSError(f"rpc error: code = {exc.code.name} desc = {exc.text}") from None
    except WireFormatError as exc:
        raise OSError(f"the answer is no health check's: {exc}") from exc
    finally:
        await channel.close()
    return _WORDS[number] if number < len(_WORDS) else str(number)
