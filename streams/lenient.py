r"""Reading records whose header names are not text.

To Kafka the name of a header is bytes. aiokafka decodes it as strict UTF-8 and raises in the middle
of a batch: the consumer dies and its successor meets the same record, so that anybody who may
produce could stop a partition for good. Here a batch that aiokafka's compiled reader cannot decode
is read on by its Python one, where such a name comes with its bytes escaped (``\xff``): text that
can be written again. Every other batch is read by the compiled reader, at its speed.

aiokafka 0.14 has no setting for this, so a class that its fetcher uses is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import (
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
    _DefaultRecordBatchPy,
)
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

from infra.telemetry import described

log = structlog.get_logger()


class _Text(bytearray):
    """Bytes that decode whatever they are, and so do their slices."""

    # `Any`: a slice gives such bytes, an index an int.
    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Text(part) if isinstance(at, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


class _SlowBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """aiokafka's batch in Python, with lenient names."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Text(self._buffer)


class _Batch:
    """A batch that is read on by the slow reader where the fast one fails."""

    def __init__(self, fast: Any, raw: memoryview) -> None:
        self._fast = fast
        self._raw = raw

    # `Any`: what else the fetcher asks of a batch, the fast one answers.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._fast, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._fast
        # The latter is what aiokafka without its compiled part makes of the former.
        except (UnicodeDecodeError, CorruptRecordException) as error:
            offset = self._fast.base_offset
            log.warning("batch read leniently", batch_offset=offset, error=described(error))
        else:
            return
        # From its start: the fetcher passes over what lies before its position.
        yield from _SlowBatch(self._raw)


class LenientRecords(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of one fetch."""

    def next_batch(self) -> Any:
        """Returns the next batch; None after the last."""
        raw = self._next_slice
        batch = super().next_batch()
        # Older formats have no headers, and control records none of a producer's.
        if isinstance(batch, DefaultRecordBatch) and not batch.is_control_batch:
            return _Batch(batch, raw)
        return batch


def read_leniently() -> None:
    """Makes every aiokafka consumer of this process read such records.

    Raises:
        RuntimeError: aiokafka does not read as it did when this was written.
    """
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 0)
    batch.append(0, 0, None, None, [("?", b"?")])
    [read] = _SlowBatch(bytes(batch.build()).replace(b"?", b"\xff"))
    known = fetcher.MemoryRecords in (MemoryRecords, LenientRecords)
    if not known or read.headers != [("\\xff", b"\xff")]:
        raise RuntimeError("aiokafka has changed: adapt streams/lenient.py")
    fetcher.MemoryRecords = LenientRecords
