"""What a client wants of a pod's container, in the terms of the kubelet API: its log, a command, its streams, its ports.

Errors  ApiError, worded as an API server words them.
State   None.
Source  API reference: Pod log query parameters, connect operations and their options; kubelet API ``/containerLogs``, ``/exec``, ``/attach``,
        ``/portForward``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from edgesite.kube import errors, times
from edgesite.kube.errors import ApiError

__all__ = ["container_of", "log_target", "refusal_of", "stream_target"]

Object = Mapping[str, Any]
Query = Mapping[str, Sequence[str]]
_FLAGS: Final = ("follow", "previous", "timestamps")
_POSITIVE: Final = ("sinceSeconds", "limitBytes")
_STREAMS: Final = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))


def log_target(pod: Object, query: Query) -> str:
    """The log of a container: path and query for the node. Raises ApiError."""
    namespace, name = _names(pod)
    wanted = _log_query(name, query)
    container = container_of(pod, query.get("container", [""])[0])
    target = f"/containerLogs/{namespace}/{name}/{quote(container)}"
    return f"{target}?{urlencode(wanted)}" if wanted else target


def stream_target(pod: Object, what: str, query: Query) -> tuple[str, dict[str, Any]]:
    """A connection into a pod (``what``: exec, attach, portforward): path and query for the node, and the options as admission sees
    them. Raises ApiError."""
    if what == "portforward":
        return _port_target(pod, query)
    command = query.get("command", []) if what == "exec" else []
    if what == "exec" and not command:
        raise errors.bad_request("you must specify at least 1 command for the container")
    namespace, name = _names(pod)
    container = container_of(pod, query.get("container", [""])[0])
    wanted = {name: query.get(name, ["false"])[0].lower() in ("true", "1", "t") for name, _ in _STREAMS}
    if what == "attach" and not any(name in query for name in ("stdin", "stdout", "stderr")):
        wanted |= {"stdout": True, "stderr": True}  # the API's defaults
    if wanted["tty"]:
        wanted["stderr"] = False  # a terminal has one output
    if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
        raise errors.bad_request("you must specify at least one of stdin, stdout, stderr")
    pairs = [(node_name, "1") for name, node_name in _STREAMS if wanted[name]]
    pairs += [("command", one) for one in command]
    target = f"/{what}/{namespace}/{name}/{quote(container)}?{urlencode(pairs)}"
    return target, {"container": container, "command": list(command), **wanted}


def refusal_of(status: int, said: str, what: str, name: str) -> ApiError:
    """What a node says of a refusal, as the API's error. ``what``: "pods/log"."""
    if status == 400:
        return errors.bad_request(said)
    if status == 500:
        return errors.internal(said)
    if status == 404:
        return ApiError(404, "NotFound", f"the server could not find the requested resource ( {what} {name})")
    return ApiError(
        status,
        "Unknown",
        f"an error on the server ({said!r}) has prevented the request from succeeding ( {what} {name})",
    )


def _port_target(pod: Object, query: Query) -> tuple[str, dict[str, Any]]:
    """Raises ApiError."""
    ports = [one for value in query.get("ports", []) for one in value.split(",") if one]
    if any(not (one.isascii() and one.isdigit()) or not 1 <= int(one) <= 65535 for one in ports):
        raise errors.bad_request("query parameter `ports` must hold port numbers")
    namespace, name = _names(pod)
    target = f"/portForward/{namespace}/{name}"
    if ports:
        target += "?" + urlencode([("port", one) for one in ports])
    return target, {"ports": [int(one) for one in ports]}


def _names(pod: Object) -> tuple[str, str]:
    metadata = pod["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def container_of(pod: Object, wanted: str) -> str:
    """Return the container whose log is meant. Raises ApiError (BadRequest)."""
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    regular = [one["name"] for one in spec.get("containers") or ()]
    init = [one["name"] for one in spec.get("initContainers") or ()]
    extra = [one["name"] for one in spec.get("ephemeralContainers") or ()]
    if wanted:
        if wanted not in (*regular, *init, *extra):
            raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(regular) == 1:
        return str(regular[0])
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
    if init:
        message += f" or one of the init containers: [{' '.join(init)}]"
    if extra:
        message += f" or one of the ephemeral containers: [{' '.join(extra)}]"
    raise errors.bad_request(message)


def _invalid(name: str, field: str, message: str) -> ApiError:
    cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {message}", "field": field}
    return errors.invalid("PodLogOptions", name, [cause])


def _log_query(name: str, query: Query) -> dict[str, str]:
    """Check the options of a log request and return those that the node needs. Raises ApiError."""
    given = {key: values[0] for key, values in query.items() if values}
    wanted: dict[str, str] = {
        key: "true" for key in _FLAGS if key in given and given[key].lower() not in ("false", "0")
    }
    for key in (*_POSITIVE, "tailLines"):
        if not given.get(key):
            continue
        try:
            number = int(given[key])
        except ValueError:
            raise errors.bad_request(f'strconv.ParseInt: parsing "{given[key]}": invalid syntax') from None
        if number < (1 if key in _POSITIVE else 0):
            least = "greater than 0" if key in _POSITIVE else "greater than or equal to 0"
            raise _invalid(name, key, f"{number}: must be {least}")
        wanted[key] = str(number)
    if since := given.get("sinceTime"):
        try:
            times.parse_time(since)
        except times.InvalidTime as exc:
            raise errors.bad_request(str(exc)) from None
        if "sinceSeconds" in wanted:
            raise _invalid(
                name,
                "sinceSeconds",
                f"{wanted['sinceSeconds']}: at most one of `sinceTime` or `sinceSeconds` may be specified",
            )
        wanted["sinceTime"] = since
    stream = given.get("stream")
    if stream and stream not in ("All", "Stdout", "Stderr"):
        raise _invalid(name, "stream", f'"{stream}": supported values: "All", "Stderr", "Stdout"')
    if stream and stream != "All":
        wanted["stream"] = stream
    return wanted
