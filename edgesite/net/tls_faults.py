"""Says when a TLS failure comes from a clock: a device without a clock of its own starts in 1970, another one years ahead.

Certificates are good from one date to another, by the clock of who checks them. So a failure may be no fault of theirs at all, and
goes away once a clock is set: the text names that clock.

Units   Wall-clock seconds.
Source  OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID (9) and X509_V_ERR_CERT_HAS_EXPIRED (10); RFC 8446 section 6.2: alert 45
        (certificate_expired), and 42 (bad_certificate), which is what OpenSSL sends for one that is not valid yet.
"""

from __future__ import annotations

import ssl
from typing import Final

from edgesite.kube import times

__all__ = ["clock_fault", "is_refused_as_expired"]

_NOT_YET: Final = 9
_EXPIRED: Final = 10
_ALERTS: Final = {
    "alert certificate expired": "takes our certificate for expired by its clock",
    "alert bad certificate": "refuses our certificate, which may be not valid yet by its clock",
}


def clock_fault(error: BaseException, now: float) -> str:
    """Return what to tell of a failure that has to do with dates, "" of any other. ``now`` is this machine's clock; of it only the
    date is told, so that the text stays the same from one attempt to the next."""
    code = _verify_code(error)
    if code is not None:
        what = "is not valid yet" if code == _NOT_YET else "has expired"
        day = times.format_time(now)[:10]
        return f"the peer's certificate {what} by this machine's clock, which says {day}: is the clock right?"
    for alert, text in _ALERTS.items():
        if any(alert in str(one) for one in _chain(error)):
            return f"the peer {text}; this machine's says {times.format_time(now)[:10]}"
    return ""


def is_refused_as_expired(error: BaseException) -> bool:
    """Whether the peer has refused our certificate because it has expired."""
    return any("alert certificate expired" in str(one) for one in _chain(error))


def _verify_code(error: BaseException) -> int | None:
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError) and one.verify_code in (_NOT_YET, _EXPIRED):
            return int(one.verify_code)
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it came from, at most some."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(found) < 8:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found
