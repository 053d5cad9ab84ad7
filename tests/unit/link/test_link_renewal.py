"""A certificate that cannot be renewed now: the present one goes on, and nothing is taken down."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest

from edgesite.context import Section
from edgesite.edge.edgehub.certificates import Certificates, JoinError
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealNet, RealThreads

pytestmark = pytest.mark.anyio


class Given(Certificates):
    """Has got its new certificate from the cloud already."""

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def _apply(self, tls: ssl.SSLContext, headers: dict[str, str]) -> tuple[bytes, bytes]:
        return b"new certificate", b"new key"


async def test_a_disk_that_refuses_the_new_certificate_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("no folder")
    names = {"tlsCaFile": "ca", "tlsCertFile": "crt", "tlsPrivateKeyFile": "key"}
    threads = RealThreads()
    for folder, well in ((tmp_path / "pki", False), (tmp_path / "there", True)):
        config = Section({name: str(folder / file) for name, file in names.items()})
        clock = RealClock()
        made = Given("edge-1", config, RealNet(), threads, clock, RealPki(clock), random.Random(1))
        if well:
            await made.renew()
            assert (folder / "crt").read_bytes() == b"new certificate"
            assert (folder / "key").stat().st_mode & 0o777 == 0o600
        else:
            with pytest.raises(JoinError, match="cannot be written"):
                await made.renew()
    await threads.close()
