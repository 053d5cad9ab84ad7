"""What the tests do with Aravis' fake cameras, in a network of their own: ``unshare --net python gige_scenes.py SCENE``.

A process of its own for each scene: network namespaces belong to processes, and a fault within Aravis ends one.
"""

from __future__ import annotations

import base64
import logging
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest
from edgesite_mapper_gige import camera as camera_module
from edgesite_mapper_gige.driver import GigEDriver

from edgesite.mapper import Device, DeviceState, DriverError, Host, Property
from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.real import RealClock, RealNet, RealThreads

WIDTH, HEIGHT = 128, 64
HOST = Host(RealNet(), RealClock(), RealThreads(), random.Random(1), logging.getLogger("test"))


@contextmanager
def camera(serial: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["arv-fake-gv-camera-0.8", "-i", address, "-s", serial]) as fake:
        try:
            yield fake
        finally:
            fake.kill()


def driver_for(serial: str, **words: Any) -> GigEDriver:
    config = {"common": {"customizedValues": {"deviceSN": serial}}, **words}
    return GigEDriver(Device("default", serial.lower(), "camera", "GigEVision", config, ()), HOST)


def prop(feature: str, kind: str = "int") -> Property:
    return Property(feature.lower(), kind, True, {"FeatureName": feature})


async def connected(driver: GigEDriver) -> GigEDriver:
    """Connect, as often as it takes the camera to come up."""
    end = anyio.current_time() + 20
    while True:
        try:
            await driver.connect()
            return driver
        except DriverError:
            if anyio.current_time() > end:
                raise
            await anyio.sleep(0.1)


async def refused(words: str, call: Any) -> None:
    with pytest.raises(DriverError, match=re.escape(words)):
        await call


async def features() -> None:
    """Features by type, their limits, and images in both formats."""
    with camera("GV01", "127.0.0.1"):
        driver = await connected(driver_for("GV01"))
        assert await driver.health() is DeviceState.ONLINE
        for feature, kind, value in [
            ("Width", "int", WIDTH),
            ("Height", "int", HEIGHT),
            ("ExposureTimeAbs", "double", 5000.0),
            ("PixelFormat", "string", "BayerRG8"),
            ("GainRaw", "int", 3),
        ]:
            await driver.write(prop(feature, kind), value)
            assert await driver.read(prop(feature, kind)) == value, feature
        await refused("is within", driver.write(prop("Width"), 1 << 20))
        await refused("PixelFormat is one of", driver.write(prop("PixelFormat", "string"), "Gold"))
        await refused("no feature Nothing", driver.read(prop("Nothing")))
        await refused("read, not written", driver.write(prop("ImageTrigger"), 1))
        await refused("one of png, pnm", driver.write(prop("ImageFormat", "string"), "gif"))

        for pixels, magic, size in [
            ("Mono8", b"P5", 1),
            ("RGB8", b"P6", 3),
            ("BayerRG8", b"P6", 3),
            ("Mono16", b"P5", 2),
        ]:
            await driver.write(prop("PixelFormat", "string"), pixels)
            await driver.write(prop("ImageFormat", "string"), "pnm")
            image = await driver.read(prop("ImageTrigger", "bytes"))
            assert isinstance(image, bytes)
            assert image.startswith(b"%b\n%d %d\n" % (magic, WIDTH, HEIGHT)), pixels
            assert len(image) - len(image.split(b"\n", 3)[3]) < 24
            assert len(image.split(b"\n", 3)[3]) == WIDTH * HEIGHT * size, pixels
            assert len(set(image[20:])) > 8, "the picture is empty"
            await driver.write(prop("ImageFormat", "string"), "png")
            text = await driver.read(prop("ImageTrigger", "string"))
            assert isinstance(text, str)
            assert base64.b64decode(text).startswith(b"\x89PNG")
        await driver.write(prop("TriggerMode", "string"), "On")
        await driver.write(prop("TriggerSource", "string"), "Software")
        assert len(bytes(await driver.read(prop("ImageTrigger", "bytes")))) > 100  # type: ignore[arg-type]
        await driver.close()
        assert not HOST.shared


async def several() -> None:
    """Two cameras by serial number; one is lost and comes back while the other goes on."""
    await anyio.run_process(["ip", "address", "add", "127.0.0.2/8", "dev", "lo"])
    with camera("GV02", "127.0.0.2"):
        with camera("GV01", "127.0.0.1"):
            one, two = driver_for("GV01"), driver_for("GV02")
            async with anyio.create_task_group() as group:
                group.start_soon(connected, one)
                group.start_soon(connected, two)
            await one.write(prop("Width"), 64)
            await two.write(prop("Width"), 96)
            assert (await one.read(prop("Width")), await two.read(prop("Width"))) == (64, 96)
            await refused("no camera has serial number GV99; there are: GV01, GV02", driver_for("GV99").connect())
            await refused("has serial number GV02", driver_for("GV01", deviceIP="127.0.0.2").connect())
        await refused("GV01", one.read(prop("Width")))
        await refused("not connected", one.health())
        assert await two.read(prop("Width")) == 96
        with camera("GV01", "127.0.0.1"):
            await connected(one)
            assert await one.read(prop("Width")) == 512
            await one.close()
            assert await two.health() is DeviceState.ONLINE
            await two.close()


async def uploads() -> None:
    """Images are posted to ImageURL in the form that KubeEdge's mapper uses."""
    got: list[tuple[str, str, bytes]] = []

    def take(request: Request) -> Response:
        field = parse_qs(request.body.decode())["gigEImage"][0]
        got.append((request.target, request.headers.get("content-type", ""), base64.urlsafe_b64decode(field)))
        return Response(200 if request.path == "/in" else 403, {}, b"")

    with camera("GV01", "127.0.0.1"):
        async with HttpServer(take, clock=HOST.clock, threads=HOST.threads, log=HOST.log) as server:
            listener = await server.listen(HOST.net, "127.0.0.1:0")
            driver = await connected(driver_for("GV01"))
            await driver.write(prop("Width"), WIDTH)
            await driver.write(prop("Height"), HEIGHT)
            assert await driver.read(prop("ImageURL", "string")) == ""
            url = f"http://{listener.address}/in?camera=1"
            await driver.write(prop("ImageURL", "string"), url)
            assert await driver.read(prop("ImageURL", "string")) == url
            await refused("answers 403", driver.write(prop("ImageURL", "string"), f"http://{listener.address}/other"))
            await refused("is no http://", driver.write(prop("ImageURL", "string"), "file:///etc/passwd"))
            await refused("takes no image", driver.write(prop("ImageURL", "string"), "http://127.0.0.1:1/"))
            await driver.close()
            await listener.close()
    assert [one[0] for one in got] == ["/in?camera=1", "/in?camera=1", "/other"]
    assert got[0][1] == "application/x-www-form-urlencoded; param=value"
    assert got[0][2].startswith(b"\x89PNG")


async def silence() -> None:
    """A camera that stops sending in the middle: no image, but a reason, within the time that a driver has."""
    camera_module.CAPTURE_S = 1.0
    with camera("GV01", "127.0.0.1") as fake:
        driver = await connected(driver_for("GV01"))
        await driver.write(prop("TriggerMode", "string"), "On")
        await driver.write(prop("TriggerSource", "string"), "Line0")
        await refused("no complete frame", driver.read(prop("ImageTrigger", "bytes")))
        assert await driver.health() is DeviceState.ONLINE
        fake.kill()
        fake.wait()
        await refused("GV01", driver.read(prop("ImageTrigger", "bytes")))
        await driver.close()


SCENES = {one.__name__: one for one in (features, several, uploads, silence)}

if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    anyio.run(SCENES[sys.argv[1]])
