"""Direction hints: what a user, a planner or a vision-language model says about where instances will go.

Paper: MoMaps, Sec. 3.4.2. Its motion language gives every instance nine directional flags, three axes with three values
each, as JSON or as conditions per pixel (`momap_ros.conditioning.hint_arrays`). The paper does not print its JSON; ours
is

    {"hints": [{"id": 3, "x": "right", "y": "stay", "z": "away"}, {"id": 5, "x": "stay", "y": "up", "z": "stay"}]}

A hint is the sign of an instance's displacement over the whole forecast along an axis of the camera's optical frame (x
right, y down, z forward, away from the camera); models are trained with that horizon alone. All three axes are given;
each also takes the signs "-", "0", "+" or -1, 0, 1. Instances without a hint are left to the model.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Flags: TypeAlias = "tuple[int, int, int]"
Hints: TypeAlias = "dict[int, Flags]"

AXES = ("x", "y", "z")
# First word for -1, second for +1.
AXIS_WORDS = (("left", "right"), ("up", "down"), ("closer", "away"))
STAY = "stay"
MAX_ID = 2**32 - 1  # ids are uint32 in messages


class HintError(ValueError):
    """Hints that cannot be understood; the message names the instance and what was expected."""


def parse_hints(text: str) -> Hints:
    """The hints of a JSON text, in its order.

    Raises:
        HintError: no JSON, another structure, an impossible id or flag, or an instance that occurs twice.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise HintError(f"hints: expected JSON like {example()}, got {_shown(text)}: {error}") from error
    return hints_from_data(data)


def hints_from_data(data: object) -> Hints:
    """The hints of decoded JSON.

    Raises:
        HintError: as `parse_hints`.
    """
    if not isinstance(data, dict) or data.keys() != {"hints"} or not isinstance(data["hints"], list):
        raise HintError(f'hints: expected an object with the one key "hints", like {example()}, got {_shown(data)}')
    hints: Hints = {}
    for place, item in enumerate(data["hints"]):
        if not isinstance(item, dict) or item.keys() != {"id", *AXES}:
            raise HintError(
                f"hints[{place}]: expected an object with the keys id, x, y and z (a hint speaks of the whole "
                f"forecast, there are no other horizons), got {_shown(item)}"
            )
        instance_id = _checked_id(item["id"], place)
        if instance_id in hints:
            raise HintError(f"hints[{place}]: expected every instance once, got instance {instance_id} again")
        hints[instance_id] = _flags_of(instance_id, item)
    return hints


def checked_hints(pairs: Iterable[tuple[int, Sequence[int]]]) -> Hints:
    """Hints from ids and flags, for instance those of a message.

    Raises:
        HintError: an impossible id or flag, or an instance that occurs twice.
    """
    items = []
    for instance_id, flags in pairs:
        if len(flags) != len(AXES):
            raise HintError(f"hint for instance {instance_id}: expected three flags (x, y, z), got {list(flags)}")
        items.append({"id": int(instance_id), **{axis: int(flag) for axis, flag in zip(AXES, flags, strict=True)}})
    return hints_from_data({"hints": items})


def hints_to_json(hints: Mapping[int, Sequence[int]]) -> str:
    """The JSON text of hints, in words; `parse_hints` reads it back."""
    items = [
        {
            "id": instance_id,
            **{axis: _word(place, flag) for place, (axis, flag) in enumerate(zip(AXES, flags, strict=True))},
        }
        for instance_id, flags in hints.items()
    ]
    return json.dumps({"hints": items})


def in_view(hints: Mapping[int, Flags], present_ids: Collection[int]) -> tuple[Hints, tuple[int, ...]]:
    """The hints of instances that are there, and the ids of those that are not."""
    there = {instance_id: flags for instance_id, flags in hints.items() if instance_id in present_ids}
    return there, tuple(instance_id for instance_id in hints if instance_id not in there)


def describe_hints(hints: Mapping[int, Sequence[int]]) -> str:
    """Hints in words, for people: "3: right, up; 5: stay"; "none" where there is none."""
    parts = []
    for instance_id, flags in hints.items():
        words = [_word(place, flag) for place, flag in enumerate(flags) if flag != 0]
        parts.append(f"{instance_id}: {', '.join(words) or STAY}")
    return "; ".join(parts) or "none"


def hints_schema(ids: Sequence[int]) -> dict[str, Any]:
    """The JSON Schema of hints for these instances, for programs that write them."""
    axes = {
        axis: {"type": "string", "enum": [low, STAY, high]} for axis, (low, high) in zip(AXES, AXIS_WORDS, strict=True)
    }
    item = {
        "type": "object",
        "properties": {"id": {"type": "integer", "enum": list(ids)}, **axes},
        "required": ["id", *AXES],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"hints": {"type": "array", "items": item}},
        "required": ["hints"],
        "additionalProperties": False,
    }


def example() -> str:
    """The shortest hints, as they are written."""
    return hints_to_json({3: (1, 0, 1)})


def _checked_id(value: object, place: int) -> int:
    if type(value) is not int or not 1 <= value <= MAX_ID:  # bool is an int, too
        raise HintError(f"hints[{place}]: expected an instance id, a whole number from 1 on, got {_shown(value)}")
    return value


def _flags_of(instance_id: int, item: Mapping[str, object]) -> Flags:
    x, y, z = (_flag(instance_id, place, item[axis]) for place, axis in enumerate(AXES))
    return x, y, z


def _flag(instance_id: int, place: int, value: object) -> int:
    low, high = AXIS_WORDS[place]
    if type(value) is int and value in (-1, 0, 1):
        return value
    words = {low: -1, STAY: 0, high: 1, "-": -1, "0": 0, "+": 1}
    if not isinstance(value, str) or value not in words:
        raise HintError(
            f"hint for instance {instance_id}, axis {AXES[place]}: expected {low}, {STAY} or {high} (or -, 0, +), got "
            f"{_shown(value)}"
        )
    return words[value]


def _word(place: int, flag: int) -> str:
    return STAY if flag == 0 else AXIS_WORDS[place][int(flag > 0)]


def _shown(value: object) -> str:
    """A value as it is quoted in an error, never longer than a line."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
