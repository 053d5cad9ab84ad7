"""Asks a program's gRPC health service whether it serves.

Errors  OSError when nothing answers or the answer is no health check's. The caller sets the deadline.
Source  grpc.health.v1 (Health/Check, SERVING is 1); core/v1 GRPCAction.
"""

from __future__ import annotations

from typing import Final

from edgesite.kube.protowire import Messages, WireFormatError, decode, encode

__all__ = ["grpc_health"]

_PATH: Final = "/grpc.health.v1.Health/Check"
_WORDS: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_HEALTH: Final = Messages(
    """
HealthCheckRequest: service string = 1
HealthCheckResponse: status int32 = 1
"""
)


async def grpc_health(address: str, service: str, timeout_s: float) -> str:
    """Return the word of the service at ``address`` (host:port): "SERVING" when it is well. Raises OSError."""
    import grpc
    import grpc.aio

    options = (("grpc.enable_retries", 0), ("grpc.primary_user_agent", "kube-probe/1.36"))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        request = encode(_HEALTH["HealthCheckRequest"], {"service": service})
        try:
            data = await channel.unary_unary(_PATH)(request, timeout=timeout_s)
            number = decode(_HEALTH["HealthCheckResponse"], data).get("status", 0)
        except grpc.aio.AioRpcError as exc:
            raise OSError(f"rpc error: code = {exc.code().name} desc = {exc.details()}") from None
        except WireFormatError as exc:
            raise OSError(f"the answer is no health check's: {exc}") from exc
    return _WORDS[number] if number < len(_WORDS) else str(number)
