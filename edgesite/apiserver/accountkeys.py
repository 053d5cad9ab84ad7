"""The keys of service account tokens: one signs, several verify, and everybody may read the public ones.

    pki/sa.key                   signs; made at the first start, kept for ever
    pki/sa-*.key, pki/sa-*.pub   verify only: former keys. To change keys rename sa.key and start anew, and remove the old
                                 one when the last token of its time has ended
    api.serviceAccountKeyFiles   verify only, wherever they are (several servers of one site, another issuer)

Errors  OSError; ValueError naming the file that holds no RSA key; PkiError from making one.
State   The files, 0600.
Source  Kubernetes: service account signing keys and issuer discovery (OpenID Connect Discovery 1.0; RFC 7517).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edgesite.apiserver.credentials import write_private
from edgesite.kube import json
from edgesite.net.http import Response
from edgesite.net.rsa import InvalidKey, PrivateKey, PublicKey

if TYPE_CHECKING:
    from edgesite.apiserver.documents import Documents
    from edgesite.net.http import Request
    from edgesite.net.pki import Pki

__all__ = ["AccountKeys", "add_discovery", "load_or_make"]

logger = logging.getLogger(__name__)
K = TypeVar("K")
_CACHED: Final = b"cache-control: public, max-age=3600\r\n"
JWKS_PATH: Final = "/openid/v1/jwks"
CONFIGURATION_PATH: Final = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """``signing`` is None where this process cannot sign; tokens are then verified only."""

    signing: PrivateKey | None
    verifying: Mapping[str, PublicKey]  #: by key id

    @classmethod
    def of(cls, signing: PrivateKey | None, more: Iterable[PublicKey] = ()) -> AccountKeys:
        keys = [signing.public, *more] if signing is not None else list(more)
        return cls(signing, {key.kid: key for key in keys})


async def load_or_make(folder: Path, files: Sequence[Path], pki: Pki) -> AccountKeys:
    """Read the keys of the folder and of further files; make the first. Raises OSError, ValueError, PkiError."""
    path = folder / "sa.key"
    if not _is_whole(path):
        write_private(path, await pki.make_signing_key())
    return _load(folder, files)


def _is_whole(path: Path) -> bool:
    """Whether there is a key; one that a bad disk has damaged is set aside, and the tokens of its time are lost. Raises OSError."""
    try:
        PublicKey.load(path.read_bytes())
    except FileNotFoundError:
        return False
    except InvalidKey as exc:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        logger.error("%s was damaged (%s) and is now %s; tokens that it signed are refused", path, exc, aside.name)
        return False
    return True


def _load(folder: Path, files: Sequence[Path]) -> AccountKeys:
    """Raises OSError, ValueError."""
    former = sorted((*folder.glob("sa-*.key"), *folder.glob("sa-*.pub")))
    return AccountKeys.of(
        _read(folder / "sa.key", PrivateKey.load), [_read(one, PublicKey.load) for one in (*former, *files)]
    )


def _read(path: Path, load: Callable[[bytes], K]) -> K:
    """Raises OSError, ValueError."""
    try:
        return load(path.read_bytes())
    except InvalidKey as exc:
        raise ValueError(f"{path}: {exc}") from exc


def add_discovery(documents: Documents, keys: AccountKeys, issuer: str, jwks_uri: str) -> None:
    """Let others verify tokens: serve the public keys, and what an OpenID Connect client asks for first."""
    configuration: dict[str, Any] = {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    key_set = {"keys": [key.jwk() for key in keys.verifying.values()]}

    def document(value: dict[str, Any], content_type: bytes) -> Any:
        body, headers = json.dumps(value), _CACHED + b"content-type: %b\r\n" % content_type

        def answer(request: Request, rest: str) -> Response:
            return Response(200, headers, body)

        return answer

    documents.add(CONFIGURATION_PATH, document(configuration, b"application/json"))
    documents.add(JWKS_PATH, document(key_set, b"application/jwk-set+json"))
