"""Says when a TLS failure comes from a clock: a device without a clock of its own starts in 1970, another one years ahead.

Certificates are good from one date to another, by the clock of who checks them. So a failure may be no fault of theirs at all, and
goes away once a clock is set: the text names that clock.

Units   Wall-clock seconds.
Source  OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID (9) and X509_V_ERR_CERT_HAS_EXPIRED (10); RFC 8446 section 6.2, alert 45. The alert
        does not tell a certificate that is not valid yet from one that has expired.
"""

from __future__ import annotations

import ssl
from typing import Final

from edgesite.kube import times

__all__ = ["clock_fault", "is_refused_by_date"]

_NOT_YET: Final = 9
_EXPIRED: Final = 10
_ALERT: Final = "certificate expired"


def clock_fault(error: BaseException, now: float) -> str:
    """Return what to tell of a failure that has to do with dates, "" of any other. ``now`` is this machine's clock; of it only the
    date is told, so that the text stays the same from one attempt to the next."""
    code = _verify_code(error)
    if code is not None:
        what = "is not valid yet" if code == _NOT_YET else "has expired"
        return (
            f"the peer's certificate {what} by this machine's clock, which says {times.format_time(now)[:10]}:"
            " is the clock right? It is tried again until it is"
        )
    if is_refused_by_date(error):
        return (
            "the peer takes our certificate for expired or not valid yet by its clock; this machine's says"
            f" {times.format_time(now)[:10]}"
        )
    return ""


def is_refused_by_date(error: BaseException) -> bool:
    """Whether the peer has refused our certificate for its dates."""
    return any(_ALERT in str(one) for one in _chain(error)) and _verify_code(error) is None


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
