"""Records of deliveries that change while they are being written."""

from __future__ import annotations

from edgesite.cloud.synccontroller.records import Records
from edgesite.wire.delivery import ObjectRef

POD = ObjectRef("uid-1", 7, "pod", "default", "web", "v1", "Pod")


def test_an_end_that_is_told_during_the_first_write_is_written_next() -> None:
    records = Records()
    records.delivered("edge-1", POD)
    records.changed.clear()  # the writer has taken it and is on its way to the API
    records.removed("edge-1", POD.uid)
    records.wrote("edge-1", POD.uid, POD)
    assert list(records.changed) == [("edge-1", POD.uid)]
    records.changed.clear()
    records.wrote("edge-1", POD.uid, None)
    assert not records.changed


def test_a_delivery_during_the_deletion_of_its_record_is_written_next() -> None:
    records = Records()
    records.delivered("edge-1", POD)
    records.wrote("edge-1", POD.uid, POD)
    records.removed("edge-1", POD.uid)
    records.changed.clear()
    records.delivered("edge-1", POD)
    records.wrote("edge-1", POD.uid, None)
    assert list(records.changed) == [("edge-1", POD.uid)]
