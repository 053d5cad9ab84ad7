"""The driver of one GigE Vision camera, known by its serial number.

A property is the GenICam feature that ``FeatureName`` says, or one of three of our own:

    ImageTrigger    read: takes an image, in base64 where the property is a string
    ImageFormat     "png" (at first) or "pnm"
    ImageURL        written: where images go to. Written or read, it takes an image and sends it there

Errors  DriverError.
State   The camera, which lives in a thread of its own, for Aravis waits for answers; format and URL, which last as long as the driver.
Source  KubeEdge v1.12, mappers-go mappers/gige (names and what they do).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from edgesite.mapper import DeviceState, DriverError
from edgesite_mapper_gige.camera import Camera, CameraLost
from edgesite_mapper_gige.finder import Finder
from edgesite_mapper_gige.images import FORMATS, ImageError, encode
from edgesite_mapper_gige.upload import checked_url, upload

if TYPE_CHECKING:
    from edgesite.context import Worker
    from edgesite.mapper import Device, Host, Property, Value

__all__ = ["GigEDriver"]

T = TypeVar("T")
TRIGGER: Final = "ImageTrigger"
FORMAT: Final = "ImageFormat"
URL: Final = "ImageURL"


class GigEDriver:
    protocol: ClassVar[str] = "GigEVision"

    def __init__(self, device: Device, host: Host) -> None:
        self._device = device
        self._host = host
        self._finder: Finder | None = None
        self._worker: Worker | None = None
        self._camera: Camera | None = None
        self._format = FORMATS[0]
        self._url = ""

    async def connect(self) -> None:
        words = _words(self._device.config)
        serial, address = str(words.get("deviceSN") or ""), str(words.get("deviceIP") or "")
        if not serial and not address:
            raise DriverError("deviceSN, the camera's serial number, is not given")
        packets = _whole(words, "packetSize"), _whole(words, "packetDelay")
        if self._finder is None:
            self._finder = Finder.of(self._host)
            self._worker = self._host.threads.worker("gige")
        finder = self._finder
        await finder.prepare()
        await self._in_thread(self._drop)
        name = address or await finder.find(serial)

        def open_camera() -> None:
            camera = Camera(finder.aravis, finder.glib, self._host.clock, name, serial)
            camera.set_packets(*packets)
            self._camera = camera

        await self._in_thread(open_camera)

    async def read(self, prop: Property) -> Value:
        feature = _feature(prop)
        if feature == FORMAT:
            return self._format
        if feature == URL:
            if self._url:
                await upload(self._host.net, self._url, await self._image())
            return self._url
        if feature == TRIGGER:
            image = await self._image()
            return base64.b64encode(image).decode() if prop.type == "string" else image
        return await self._with_camera(lambda camera: camera.get(feature))

    async def write(self, prop: Property, value: Value) -> None:
        feature = _feature(prop)
        if feature == TRIGGER:
            raise DriverError(f"{TRIGGER} is read, not written")
        if feature == FORMAT:
            if value not in FORMATS:
                raise DriverError(f"{FORMAT} is one of {', '.join(FORMATS)}")
            self._format = str(value)
        elif feature == URL:
            self._url = checked_url(str(value))
            await upload(self._host.net, self._url, await self._image())
        else:
            await self._with_camera(lambda camera: camera.set(feature, value))

    async def health(self) -> DeviceState:
        await self._with_camera(Camera.check)
        return DeviceState.ONLINE

    async def close(self) -> None:
        worker, self._worker = self._worker, None
        if self._finder is not None:
            self._finder.release()
            self._finder = None
        if worker is not None:
            worker.submit(self._drop)
            await worker.close()

    async def _image(self) -> bytes:
        form = self._format

        def take(camera: Camera) -> bytes:
            try:
                return encode(camera.capture(), form)
            except ImageError as exc:
                raise DriverError(str(exc)) from exc

        return await self._with_camera(take)

    async def _with_camera(self, call: Callable[[Camera], T]) -> T:
        """Raises DriverError."""

        def ask() -> T:
            camera = self._camera
            if camera is None:
                raise DriverError("the camera is not connected")
            try:
                return call(camera)
            except CameraLost:
                self._drop()
                raise

        return await self._in_thread(ask)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._worker is None:
            raise DriverError("the camera is not connected")
        return await self._worker.submit(call)

    def _drop(self) -> None:
        self._camera = None  # with it goes Aravis' control of the camera


def _feature(prop: Property) -> str:
    return str(prop.visitor.get("FeatureName") or prop.visitor.get("featureName") or prop.name)


def _words(config: Any) -> dict[str, Any]:
    common = config.get("common")
    besides = common.get("customizedValues") if isinstance(common, dict) else None
    return {**(besides if isinstance(besides, dict) else {}), **config}


def _whole(words: dict[str, Any], name: str) -> int:
    try:
        number = int(words.get(name) or 0)
    except (TypeError, ValueError):
        raise DriverError(f"{name} is no whole number") from None
    if not 0 <= number <= 1 << 30:
        raise DriverError(f"{name} is out of range")
    return number
