"""What becomes of records that the API refuses."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

from edgesite.cloud.synccontroller.records import Records
from edgesite.cloud.synccontroller.writer import RecordWriter
from edgesite.kube.errors import ApiError
from edgesite.wire.delivery import ObjectRef

pytestmark = pytest.mark.anyio
_TERMINATING = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}


class Refusing:
    """An API that refuses each new record in the same way."""

    def __init__(self, error: ApiError) -> None:
        self.error = error

    async def create(self, kind: Any, obj: dict[str, Any]) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [
        (ApiError(404, "NotFound", "no such namespace"), False),
        (ApiError(403, "Forbidden", "the namespace is being terminated", _TERMINATING), False),
        (ApiError(403, "Forbidden", "no rights"), True),
        (ApiError(503, "ServiceUnavailable", "no answer"), True),
    ],
)
async def test_a_record_is_tried_again_unless_its_namespace_goes(error: ApiError, is_kept: bool) -> None:
    records = Records()
    records.delivered("edge-1", ObjectRef("u1", 7, "pod", "default", "web", "v1", "Pod"))
    writer = RecordWriter(Refusing(error), records, random.Random(1), logging.getLogger("test"))  # type: ignore[arg-type]
    await writer.flush()
    assert (("edge-1", "u1") in records.changed) is is_kept
