"""TFRecord files and the tf.train.Example messages in them, without TensorFlow.

A file is a row of records: length (8 bytes), masked CRC-32C of it (4), content, masked CRC-32C of that (4), all little
endian. Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/example/feature.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from momap_ros.data.importing.common import RecordingError

UInt32 = npt.NDArray[np.uint32]
_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_MASK_DELTA = 0xA282EAD8
_LANE_BYTES = 128
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_records(path: Path) -> Iterator[bytes]:
    """The content of every record, checked against its checksum.

    Raises:
        RecordingError: the file is truncated or damaged; the message names the record.
    """
    with path.open("rb") as file:
        number = 0
        while header := file.read(12):
            if len(header) < 12 or _masked(crc32c(header[:8])) != int.from_bytes(header[8:], "little"):
                what = "the file ends" if len(header) < 12 else "its checksum differs"
                raise _damaged(path, number, f"expected a length, {what}")
            length = int.from_bytes(header[:8], "little")
            content, checksum = file.read(length), file.read(4)
            if len(content) + len(checksum) < length + 4:
                raise _damaged(path, number, f"expected {length} bytes, the file ends after {len(content)}")
            if _masked(crc32c(content)) != int.from_bytes(checksum, "little"):
                raise _damaged(path, number, f"expected {length} intact bytes, their checksum differs")
            yield content
            number += 1


def parse_example(content: bytes) -> dict[str, memoryview]:
    """Feature name -> the feature, still encoded; `feature_values` decodes those that are needed.

    Raises:
        ValueError: not a tf.train.Example.
    """
    features = {}
    for _, _, message in _fields(memoryview(content)):
        for _, _, entry in _fields(_message(message)):
            parts = {number: _message(value) for number, _, value in _fields(_message(entry))}
            features[bytes(parts[1]).decode()] = parts.get(2, memoryview(b""))
    return features


def feature_values(feature: memoryview) -> list[bytes] | list[float] | list[int]:
    """The values of one feature, by its kind: bytes_list, float_list or int64_list.

    Raises:
        ValueError: not a tf.train.Feature.
    """
    values: list[bytes] = []
    numbers: list[float] = []
    integers: list[int] = []
    for kind, _, message in _fields(feature):
        for _, _, value in _fields(_message(message)):
            if kind == 1:
                values.append(bytes(_message(value)))
            elif kind == 2:
                numbers += np.frombuffer(_message(value), "<f4").tolist()
            else:
                integers += [value] if isinstance(value, int) else _varints(value)
    return values or numbers or [number - (number >> 63 << 64) for number in integers]


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes.

    A checksum is linear: the data is cut into lanes of equal length that NumPy works through side by side, and their
    checksums are joined afterwards. More than ten times as fast as a loop over bytes.
    """
    table = _table()
    whole = len(data) // _LANE_BYTES * _LANE_BYTES
    crc = 0xFFFFFFFF
    if whole:
        lanes = np.zeros(whole // _LANE_BYTES, np.uint32)
        lanes[0] = crc
        for column in np.ascontiguousarray(np.frombuffer(data, np.uint8, whole).reshape(-1, _LANE_BYTES).T):
            lanes = table[(lanes ^ column) & 0xFF] ^ (lanes >> 8)
        crc = 0
        shift = _lane_shift().tolist()
        for lane in lanes.tolist():
            crc = (
                shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255] ^ shift[3][crc >> 24] ^ lane
            )
    entries = table.tolist()
    for byte in data[whole:]:
        crc = entries[(crc ^ byte) & 255] ^ (crc >> 8)
    return int(crc) ^ 0xFFFFFFFF


@lru_cache
def _table() -> UInt32:
    """(256,) the effect of one byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@lru_cache
def _lane_shift() -> UInt32:
    """(4, 256) what a lane of zeros makes of a register, by the register's bytes, the lowest first."""
    registers = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    for _ in range(_LANE_BYTES):
        registers = _table()[registers & 0xFF] ^ (registers >> 8)
    return registers


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _damaged(path: Path, number: int, what: str) -> RecordingError:
    return RecordingError(f"{path}: record {number}: {what}; the file is truncated or damaged: copy it again")


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of a protocol buffer message; numbers of fixed size come as their bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"expected a protocol buffer message, got wire type {wire}")
        if position + size > len(message):
            raise ValueError(f"expected {size} bytes in a protocol buffer message, it ends before")
        yield number, wire, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number of variable length at a position, and the position after it."""
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
    raise ValueError("expected a number in a protocol buffer message, it ends before")


def _varints(message: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(message):
        value, position = _varint(message, position)
        values.append(value)
    return values


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("expected a part of a protocol buffer message, got a number")
    return value
