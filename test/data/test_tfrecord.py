"""TFRecord files: checksums, framing and the messages in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from momap_ros.data.importing.common import RecordingError
from momap_ros.data.importing.tfrecord import crc32c, feature_values, parse_example, read_records

# Made by hand of the formats' definitions: Example { features { feature {
#   key "a" value { bytes_list { value "xy" value "" } } } feature { key "b" value { float_list { value [1.5, -2] } } }
#   feature { key "c" value { int64_list { value [3, 300, -1] } } } } }
FEATURE_A = bytes.fromhex("0a 0d 0a 01 61 12 08 0a 06 0a 02 78 79 0a 00")
FEATURE_B = bytes.fromhex("0a 11 0a 01 62 12 0c 12 0a 0a 08 00 00 c0 3f 00 00 00 c0")
FEATURE_C = bytes.fromhex("0a 16 0a 01 63 12 11 1a 0f 0a 0d 03 ac 02 ff ff ff ff ff ff ff ff ff 01")
EXAMPLE = bytes([0x0A, len(FEATURE_A + FEATURE_B + FEATURE_C)]) + FEATURE_A + FEATURE_B + FEATURE_C


def bitwise_crc32c(data: bytes) -> int:
    """The definition: division by the Castagnoli polynomial, one bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> bytes:
    return (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def record(content: bytes) -> bytes:
    """A record as TensorFlow writes it."""
    length = len(content).to_bytes(8, "little")
    return length + masked(bitwise_crc32c(length)) + content + masked(bitwise_crc32c(content))


def test_the_check_value_of_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    # RFC 3720, section B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@pytest.mark.parametrize("size", [1, 127, 128, 129, 255, 256, 5000])
def test_lanes_agree_with_the_definition(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == bitwise_crc32c(data)


def test_a_record_made_by_hand(tmp_path: Path) -> None:
    # The published CRC-32C of "abc".
    assert bitwise_crc32c(b"abc") == 0x364B3FB7
    (tmp_path / "x.tfrecord").write_bytes(record(b"abc") + record(b""))
    assert list(read_records(tmp_path / "x.tfrecord")) == [b"abc", b""]


def test_examples_have_values_of_three_kinds() -> None:
    features = parse_example(EXAMPLE)
    assert {name: feature_values(feature) for name, feature in features.items()} == {
        "a": [b"xy", b""],
        "b": [1.5, -2.0],
        "c": [3, 300, -1],
    }


def test_numbers_need_not_be_packed() -> None:
    assert feature_values(memoryview(bytes.fromhex("1a 05 08 03 08 ac 02"))) == [3, 300]
    assert feature_values(memoryview(bytes.fromhex("12 0a 0d 00 00 c0 3f 0d 00 00 00 c0"))) == [1.5, -2.0]
    assert feature_values(memoryview(b"")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (EXAMPLE[:-1], "it ends before"),
        (b"\x0b", "got wire type 3"),
        (b"\xff" * 20, "expected a number"),
        (b"\x08\x01", "got a number"),
    ],
)
def test_other_bytes_are_no_example(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_example(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "record 1: expected 200 bytes, the file ends after 200"),
        (lambda data: data[:-100], "record 1: expected 200 bytes, the file ends after 104"),
        (lambda data: data[:-210], "record 1: expected a length, the file ends"),
        (lambda data: data[:20] + b"?" + data[21:], "record 0: expected 40 intact bytes, their checksum differs"),
        (lambda data: data[:-216] + b"?" + data[-215:], "record 1: expected a length, its checksum differs"),
        (lambda data: b"\x1f\x8b" + data, "record 0: expected a length, its checksum differs"),
    ],
    ids=["cut at the end", "cut in the content", "cut in the length", "content", "length", "compressed"],
)
def test_damage_is_found_and_the_record_named(tmp_path: Path, damage: object, message: str) -> None:
    assert callable(damage)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(damage(record(bytes(40)) + record(bytes(200))))
    with pytest.raises(RecordingError, match=message):
        list(read_records(path))
