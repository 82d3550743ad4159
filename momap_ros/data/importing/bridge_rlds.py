"""BRIDGE as RLDS: one TFRecord per episode, images as JPEG, made by TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from momap_ros.data.importing.common import EpisodeError, Frame, Log, RecordingError, Request, decode_image
from momap_ros.data.importing.tfrecord import feature_values, parse_example, read_records

_OBSERVATION = "steps/observation/"
# Where data sets of this family keep the sentence; the first is BRIDGE's.
_INSTRUCTIONS = (
    "steps/language_instruction",
    "steps/natural_language_instruction",
    f"{_OBSERVATION}natural_language_instruction",
)


class BridgeRlds:
    """Episodes of *.tfrecord files."""

    KIND = "bridge-rlds"
    LOOKS_LIKE = "a folder of *.tfrecord* files, or one of them"
    SPLIT = "bridge"

    def recognises(self, source: Path) -> bool:
        """Whether there are TFRecord files."""
        return bool(_record_files(source))

    def frames(self, request: Request, log: Log) -> Iterator[Frame]:
        """Frames of every record.

        The flags has_image_N are not used: real files have 0 beside real images. What stands in for an image that does
        not exist is of one colour, and is left out.

        Raises:
            RecordingError: no TFRecord files, or a damaged one.
        """
        paths = _record_files(request.source)
        if not paths:
            raise RecordingError(f"{request.source}: expected {self.LOOKS_LIKE}, got neither")
        for path in paths:
            log.files.add(path)
            for number, content in enumerate(read_records(path)):
                name = f"{path.name}:{number}"
                with log.episode(name):
                    yield from _frames(name, content, request)


def _record_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if ".tfrecord" in source.name else []
    return sorted(path for path in source.glob("*.tfrecord*") if path.is_file())


def _frames(name: str, content: bytes, request: Request) -> Iterator[Frame]:
    try:
        features = parse_example(content)
    except (ValueError, KeyError) as error:
        raise EpisodeError(f"expected a tf.train.Example in the record, got something else: {error}") from error
    camera = _camera(features, request.camera)
    images = _bytes(features, f"{_OBSERVATION}{camera}")
    texts = next((_bytes(features, key) for key in _INSTRUCTIONS if key in features), [])
    for index in request.indices(len(images)):
        rgb = decode_image(images[index])
        if rgb.min() == rgb.max():
            raise EpisodeError(f"camera {camera}: expected an image, got one colour: the episode has no such camera")
        text = texts[index].decode("utf-8", "replace") if index < len(texts) else ""
        yield Frame(name, index, text, rgb, factors={"view": camera})


def _camera(features: Mapping[str, memoryview], wanted: str) -> str:
    """The wanted camera, else the first there is."""
    there = sorted(
        key.removeprefix(_OBSERVATION)
        for key in features
        if key.startswith((f"{_OBSERVATION}image", f"{_OBSERVATION}rgb"))
    )
    if not there or (wanted and wanted not in there):
        raise EpisodeError(
            f"expected a feature {_OBSERVATION}{wanted or 'image_0'}, got {', '.join(there) or sorted(features)}; "
            "choose with --camera"
        )
    return wanted or there[0]


def _bytes(features: Mapping[str, memoryview], key: str) -> list[bytes]:
    try:
        values = feature_values(features[key])
    except ValueError as error:
        raise EpisodeError(f"{key}: expected a feature, could not decode it: {error}") from error
    found = [value for value in values if isinstance(value, bytes)]
    if not found or len(found) < len(values):
        raise EpisodeError(f"{key}: expected byte strings, got {'numbers' if values else 'nothing'}")
    return found
