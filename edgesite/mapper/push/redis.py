"""Values to Redis: ``ZADD <device> <milliseconds> <JSON>``, as KubeEdge's mappers write them, with PASSWORD.

Commands of a batch are sent at once, and each is answered with a line.

Errors  Away while Redis loads, is full, is a replica, or wants another password; Refused for single commands; other OSErrors.
Source  KubeEdge v1.23 mapper-framework, _template/mapper/data/dbmethod/redis/client.go; "Redis serialization protocol specification" (RESP2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.kube import json
from edgesite.mapper.push.sink import Away, Outside, Refused, Route, Sample, mapping, number, text
from edgesite.net import address
from edgesite.net.bytestream import ByteStream

__all__ = ["RedisSink", "command", "member", "route"]

_LINE_BYTES: Final = 4096
#: First words of errors that tell of the command, not of the server.
_OWN_FAULT: Final = frozenset({"WRONGTYPE", "ERR"})


def route(section: Mapping[str, Any]) -> Route:
    """Raises ValueError."""
    client = mapping(section, "redisClientConfig")
    at = address.parse(text(client, "addr"))
    if at.kind == "mem":
        raise ValueError("addr is host:port")
    database = number(client, "db", 0, 1_000_000)
    return Route("redis", (at, database), lambda outside: RedisSink(str(at), database, outside))


def member(sample: Sample) -> bytes:
    return json.dumps(
        {
            "DeviceName": sample.device,
            "PropertyName": sample.property,
            "Namespace": sample.namespace,
            "Value": sample.value,
            "Type": sample.type,
            "TimeStamp": sample.at_ms,
        }
    )


def command(*words: str | bytes) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)


class RedisSink:
    """See the module docstring."""

    most = 500

    def __init__(self, at: str, database: int, outside: Outside) -> None:
        self._at, self._database = at, database
        self._net, self._password = outside.host.net, outside.environ.get("PASSWORD", "")
        self._stream: ByteStream | None = None
        self._rest = b""

    async def send(self, batch: Sequence[Sample]) -> None:
        done = False
        try:
            if self._stream is None:
                await self._connect()
            written = [command("ZADD", one.device, str(one.at_ms), member(one)) for one in batch]
            answers = await self._ask(written)
            done = True
        finally:
            if not done:
                await self.close()
        refused = [place for place, answer in enumerate(answers) if answer.startswith("-")]
        for place in refused:
            if answers[place][1:].split(" ", 1)[0] not in _OWN_FAULT:
                raise Away(answers[place][1:])
        if refused:
            raise Refused(answers[refused[0]][1:], refused)

    async def _connect(self) -> None:
        """Raises OSError."""
        _, self._stream = await self._net.connect(ByteStream, self._at)
        self._rest = b""
        first = [command("AUTH", self._password)] if self._password else []
        first.append(command("SELECT", str(self._database)))
        for answer in await self._ask(first):
            if answer.startswith("-"):
                raise Away(answer[1:])

    async def _ask(self, commands: Sequence[bytes]) -> list[str]:
        """Send commands, return the line that answers each. Raises OSError."""
        assert self._stream is not None
        await self._stream.send(b"".join(commands))
        return [await self._line() for _ in commands]

    async def _line(self) -> str:
        assert self._stream is not None
        while b"\r\n" not in self._rest:
            piece = await self._stream.receive()
            if not piece:
                raise Away("Redis has closed the connection")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\r\n")
        if line[:1] not in (b"+", b"-", b":") or len(line) > _LINE_BYTES:
            raise Away("the answer is not Redis'")
        return line.decode(errors="replace")

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
