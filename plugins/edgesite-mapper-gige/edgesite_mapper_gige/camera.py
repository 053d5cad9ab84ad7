"""One camera through Aravis: its features by name, and single frames. All of it blocks, and belongs to one thread.

Features have the camera's own names (SFNC, or older ones); what type one has, the camera's description says. A command is executed by writing true.

A frame is taken by starting the acquisition and stopping it again; a camera that waits for a software trigger is given it.

Errors  CameraLost if the camera cannot be spoken to any more: it has to be opened anew. DriverError otherwise.
State   The open camera. Aravis keeps its control channel alive by itself.
Source  GigE Vision's registers (control channel privilege), GenICam SFNC (acquisition and trigger features).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.mapper import DriverError, Value
from edgesite_mapper_gige.images import Frame

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["Camera", "CameraLost"]

CONTROL: Final = 0x0A00  #: the register that says who controls the camera
BUFFERS: Final = 3
FRAME_BYTES: Final = 128 << 20  #: of one frame, and of all buffers together
FRAME_S: Final = 3.0  #: until the next frame
CAPTURE_S: Final = 8.0  #: until one is complete


class CameraLost(DriverError):
    """The camera is gone, or under somebody else's control."""


class Camera:
    def __init__(self, aravis: Any, glib: Any, clock: Clock, name: str, serial: str) -> None:
        """Open the camera of that id or address. Raises CameraLost; DriverError if it is another one than it should be."""
        self._aravis, self._glib, self._clock = aravis, glib, clock
        self.serial = serial
        self._camera = self._do(lambda: aravis.Camera.new(name))
        self._device = self._camera.get_device()
        found = self._do(self._camera.get_device_serial_number)
        if serial and found != serial:
            raise DriverError(f"the camera at {name} has serial number {found}")
        # Raw sockets see nothing on loopback and need rights; single frames do not need their speed.
        self._camera.gv_set_stream_options(aravis.GvStreamOption.PACKET_SOCKET_DISABLED)

    def set_packets(self, size: int, delay_ns: int) -> None:
        """0 leaves one as it is."""
        if size:
            self._do(lambda: self._camera.gv_set_packet_size(size))
        if delay_ns:
            self._do(lambda: self._camera.gv_set_packet_delay(delay_ns))

    def check(self) -> None:
        """Raises CameraLost."""
        if not self._do(lambda: self._device.read_register(CONTROL)):
            raise CameraLost(f"camera {self.serial} has been restarted: it is not under our control")

    def get(self, feature: str) -> Value:
        node = self._node(feature)
        kinds, device = self._aravis, self._device
        if isinstance(node, kinds.GcCommand):
            return False
        if node.get_actual_access_mode() == kinds.GcAccessMode.WO:
            raise DriverError(f"feature {feature} cannot be read")
        if isinstance(node, kinds.GcEnumeration):
            return str(self._do(lambda: device.get_string_feature_value(feature)))
        if isinstance(node, kinds.GcBoolean):
            return bool(self._do(lambda: device.get_boolean_feature_value(feature)))
        if isinstance(node, kinds.GcFloat):
            return float(self._do(lambda: device.get_float_feature_value(feature)))
        if isinstance(node, kinds.GcInteger):
            return int(self._do(lambda: device.get_integer_feature_value(feature)))
        if isinstance(node, kinds.GcString):
            return str(self._do(lambda: device.get_string_feature_value(feature)))
        raise DriverError(f"feature {feature} has no value")

    def set(self, feature: str, value: Value) -> None:
        node = self._node(feature)
        kinds, device = self._aravis, self._device
        if isinstance(value, bytes):
            raise DriverError(f"feature {feature} takes no bytes")
        if isinstance(node, kinds.GcCommand):
            if value in (True, "true", 1):
                self._do(lambda: device.execute_command(feature))
            return
        if node.get_actual_access_mode() == kinds.GcAccessMode.RO:
            raise DriverError(f"feature {feature} cannot be written now")
        if isinstance(node, kinds.GcEnumeration):
            words = self._do(lambda: device.dup_available_enumeration_feature_values_as_strings(feature))
            if str(value) not in words:
                raise DriverError(f"feature {feature} is one of {', '.join(words)}")
            self._do(lambda: device.set_string_feature_value(feature, str(value)))
        elif isinstance(node, kinds.GcBoolean):
            wanted = value == "true" if isinstance(value, str) else bool(value)
            self._do(lambda: device.set_boolean_feature_value(feature, wanted))
        elif isinstance(node, kinds.GcFloat):
            self._set_number(feature, value, float, device.get_float_feature_bounds, device.set_float_feature_value)
        elif isinstance(node, kinds.GcInteger):
            self._set_number(feature, value, int, device.get_integer_feature_bounds, device.set_integer_feature_value)
        elif isinstance(node, kinds.GcString):
            self._do(lambda: device.set_string_feature_value(feature, str(value)))
        else:
            raise DriverError(f"feature {feature} has no value")

    def capture(self) -> Frame:
        """Return the next complete frame. Raises CameraLost, DriverError."""
        camera, success = self._camera, self._aravis.BufferStatus.SUCCESS
        payload = self._do(camera.get_payload)
        if not 0 < payload <= FRAME_BYTES:
            raise DriverError(f"frames of {payload} bytes are not taken")
        stream = self._do(lambda: camera.create_stream(None, None))
        for _ in range(min(BUFFERS, FRAME_BYTES // payload)):
            stream.push_buffer(self._aravis.Buffer.new_allocate(payload))
        end, frames = self._clock.monotonic() + CAPTURE_S, 0
        self._do(camera.start_acquisition)
        try:
            while (left := end - self._clock.monotonic()) > 0:
                if self._waits_for_us():
                    self._do(camera.software_trigger)
                buffer = stream.timeout_pop_buffer(int(min(left, FRAME_S) * 1_000_000))
                if buffer is None:
                    break
                frames += 1
                if buffer.get_status() == success:
                    return self._frame(buffer)
                stream.push_buffer(buffer)
        finally:
            self._do(camera.stop_acquisition)
        self.check()
        raise DriverError(f"camera {self.serial} sent no complete frame" + (f" among {frames}" if frames else ""))

    def _frame(self, buffer: Any) -> Frame:
        padding = getattr(buffer, "get_image_padding", lambda: (0, 0))()[0]
        return Frame(
            buffer.get_image_width(),
            buffer.get_image_height(),
            buffer.get_image_pixel_format() & 0xFFFFFFFF,
            bytes(buffer.get_data()),
            padding,
        )

    def _waits_for_us(self) -> bool:
        device = self._device
        if device.get_feature("TriggerMode") is None or device.get_feature("TriggerSource") is None:
            return False
        mode = self._do(lambda: device.get_string_feature_value("TriggerMode"))
        return mode == "On" and self._do(lambda: device.get_string_feature_value("TriggerSource")) == "Software"

    def _set_number(self, feature: str, value: Any, kind: Any, bounds: Any, put: Any) -> None:
        try:
            number = kind(value)
        except ValueError:
            raise DriverError(f"feature {feature} takes a number") from None
        low, high = self._do(lambda: bounds(feature))
        if not low <= number <= high:
            raise DriverError(f"feature {feature} is within {low:g} to {high:g} now")
        self._do(lambda: put(feature, number))

    def _node(self, feature: str) -> Any:
        node = self._device.get_feature(feature)
        if node is None or not isinstance(node, self._aravis.GcFeatureNode):
            raise DriverError(f"camera {self.serial} has no feature {feature}")
        if not self._do(node.is_available):
            raise DriverError(f"feature {feature} is not available now")
        return node

    def _do(self, call: Callable[[], Any]) -> Any:
        """Raises CameraLost, DriverError."""
        try:
            return call()
        except self._glib.Error as exc:
            text = f"camera {self.serial}: {exc.message}"
            errors, domain = self._aravis.DeviceError, self._glib.quark_to_string(self._aravis.device_error_quark())
            ours = (errors.FEATURE_NOT_FOUND, errors.INVALID_PARAMETER, errors.WRONG_FEATURE)
            if exc.domain == domain and exc.code not in [int(one) for one in ours]:
                raise CameraLost(text) from exc
            raise DriverError(text) from exc
