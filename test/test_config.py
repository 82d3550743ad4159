from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import momap_ros.config
from momap_ros.config import InputConfig, ObjectMotionConfig, SegmentationConfig, Settings, setting

GROUPS: list[Any] = [
    value
    for value in vars(momap_ros.config).values()
    if inspect.isclass(value) and issubclass(value, Settings) and value is not Settings
]
FIELDS = [(group, field) for group in GROUPS for field in dataclasses.fields(group)]
FIELD_IDS = [f"{group.__name__}.{field.name}" for group, field in FIELDS]


def test_there_are_groups() -> None:
    assert {SegmentationConfig, ObjectMotionConfig, InputConfig} <= set(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_defaults_are_allowed_and_frozen(group: type[Any]) -> None:
    settings = group()

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(group)[0].name, None)


@pytest.mark.parametrize(("group", "field"), FIELDS, ids=FIELD_IDS)
def test_every_setting_documents_itself(group: type[Settings], field: dataclasses.Field[Any]) -> None:
    description = field.metadata["description"]

    assert re.fullmatch(r"\S.*[^.]\.", description), "one sentence, with its full stop"
    assert str(field.type) == type(field.default).__name__, "the annotation is the type of the default"
    units = {"_m_s": "m/s", "_rad_s": "rad/s", "_m": "metres", "_s": "seconds", "_px": "pixels"}
    unit = next((unit for suffix, unit in units.items() if field.name.endswith(suffix)), "")
    assert unit in description.lower() or group is SegmentationConfig


@pytest.mark.parametrize(("group", "field"), FIELDS, ids=FIELD_IDS)
def test_limits_hold(group: type[Settings], field: dataclasses.Field[Any]) -> None:
    kind: Any = type(field.default)
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    for limit, outside in ((minimum, -1), (maximum, 1)):
        if limit is None:
            continue
        group(**{field.name: kind(limit)})
        with pytest.raises(ValueError, match=rf"^{field.name}: expected a value in \["):
            group(**{field.name: kind(limit + outside)})
    if kind is float:
        with pytest.raises(ValueError, match="got nan"):
            group(**{field.name: float("nan")})
    for choice in field.metadata["choices"]:
        group(**{field.name: choice})


@pytest.mark.parametrize(("group", "field"), FIELDS, ids=FIELD_IDS)
def test_wrong_types_are_refused(group: type[Settings], field: dataclasses.Field[Any]) -> None:
    wrong = 1 if isinstance(field.default, (str, bool)) else "1"

    with pytest.raises(
        ValueError, match=f"^{field.name}: expected {type(field.default).__name__}, got {type(wrong).__name__}"
    ):
        group(**{field.name: wrong})


def test_whole_numbers_serve_as_floats_but_not_the_other_way_round() -> None:
    assert ObjectMotionConfig(moving_threshold_m=1).moving_threshold_m == 1
    with pytest.raises(ValueError, match=r"stride: expected int, got float 2\.0"):
        SegmentationConfig(stride=2.0)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ValueError, match="stride: expected int, got bool True"):
        SegmentationConfig(stride=True)


def test_a_wrong_choice_names_the_right_ones() -> None:
    with pytest.raises(
        ValueError, match=r"^method: expected one of \['tabletop', 'sam2'\], got 'sam3'; tabletop: plane"
    ):
        SegmentationConfig(method="sam3")


def test_errors_repeat_what_the_setting_means() -> None:
    with pytest.raises(
        ValueError, match=r"expected a value in \[0\.001, 1\.0\], got 2\.0; An object moves when its centroid"
    ):
        ObjectMotionConfig(moving_threshold_m=2.0)


def test_one_sided_limits() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sided(Settings):
        low: int = setting(1, "At least zero.", minimum=0)
        high: int = setting(1, "At most nine.", maximum=9)

    assert Sided(low=10**9, high=-(10**9)).low == 10**9
    with pytest.raises(ValueError, match=r"low: expected a value in \[0, None\], got -1"):
        Sided(low=-1)
    with pytest.raises(ValueError, match=r"high: expected a value in \[None, 9\], got 10"):
        Sided(high=10)


def test_every_setting_is_read_somewhere(repository: Path, tracked_files: list[Path]) -> None:
    read = {
        node.attr
        for path in tracked_files
        if path.parts[0] == "momap_ros" and path.suffix == ".py" and path.name != "config.py"
        for node in ast.walk(ast.parse((repository / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }

    assert {field.name for _, field in FIELDS} - read == set()
