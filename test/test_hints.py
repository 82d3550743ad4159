"""The hint language: what is understood, what is refused and how, and that it reads what it writes."""

from __future__ import annotations

import itertools
import json

import pytest

from momap_ros.hints import (
    HintError,
    checked_hints,
    describe_hints,
    hints_schema,
    hints_to_json,
    in_view,
    parse_hints,
)
from momap_ros.report import direction_from_words

ALL_FLAGS = list(itertools.product((-1, 0, 1), repeat=3))


def hint(**changes: object) -> str:
    return json.dumps({"hints": [{"id": 3, "x": "right", "y": "stay", "z": "away"} | changes]})


def test_words_mean_the_axes_of_the_optical_frame() -> None:
    items = [{"id": 3, "x": "right", "y": "up", "z": "away"}, {"id": 5, "x": "left", "y": "down", "z": "closer"}]
    assert parse_hints(json.dumps({"hints": items})) == {3: (1, -1, 1), 5: (-1, 1, -1)}
    assert parse_hints(hint(x="+", y="-", z="0")) == {3: (1, -1, 0)}
    assert parse_hints(hint(x=-1, y=0, z=1)) == {3: (-1, 0, 1)}
    assert parse_hints('{"hints": []}') == {}


def test_every_hint_is_read_back_as_it_was_written() -> None:
    hints = dict(enumerate(ALL_FLAGS, start=1))
    assert parse_hints(hints_to_json(hints)) == hints
    assert checked_hints((i, list(flags)) for i, flags in hints.items()) == hints
    with pytest.raises(HintError, match=r"instance 3: expected three flags \(x, y, z\), got \[1, 0\]"):
        checked_hints([(3, (1, 0))])
    with pytest.raises(HintError, match=r"instance 3, axis y: .* got 5"):
        checked_hints([(3, (1, 5, 0))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON like"),
        ("[" * 100_000, "expected JSON like"),
        ("[]", 'one key "hints"'),
        ('{"hints": {}}', 'one key "hints"'),
        ('{"hints": [], "dT": 4}', 'one key "hints"'),
        ('{"hints": [7]}', r"hints\[0\]: expected an object with the keys id, x, y and z"),
        (hint(dT=16), "there are no other horizons"),
        ('{"hints": [{"id": 3, "x": "left"}]}', "keys id, x, y and z"),
        (hint(id=0), "a whole number from 1 on, got 0"),
        (hint(id=True), "a whole number from 1 on, got True"),
        (hint(id="cup"), "a whole number from 1 on, got 'cup'"),
        (hint(id=2**32), "a whole number from 1 on"),
        (hint(x="up"), "instance 3, axis x: expected left, stay or right .* got 'up'"),
        (hint(y="Up"), "instance 3, axis y: expected up, stay or down .* got 'Up'"),
        (hint(z="forward"), "instance 3, axis z: expected closer, stay or away"),
        (hint(z=2), "instance 3, axis z: .* got 2"),
        (hint(z=True), "instance 3, axis z: .* got True"),
        (hint(z=None), "instance 3, axis z: .* got None"),
        (hint()[:-2] + ", " + hint()[11:], r"hints\[1\]: expected every instance once, got instance 3 again"),
    ],
)
def test_what_is_not_a_hint_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(HintError, match=message) as caught:
        parse_hints(text)
    assert len(str(caught.value)) < 500


def test_hints_for_what_is_not_in_view_are_named() -> None:
    there, absent = in_view({3: (1, 0, 0), 9: (0, 0, 0), 4: (0, 1, 0)}, [4, 3, 2])
    assert there == {3: (1, 0, 0), 4: (0, 1, 0)}
    assert absent == (9,)


def test_descriptions_are_what_the_command_line_takes() -> None:
    assert describe_hints({3: (1, -1, 0), 5: (0, 0, 0)}) == "3: right, up; 5: stay"
    assert describe_hints({}) == "none"
    for flags in ALL_FLAGS[:13] + ALL_FLAGS[14:]:  # all but (0, 0, 0), which the command line calls "stays"
        assert direction_from_words(describe_hints({1: flags}).removeprefix("1: ")) == flags


def test_the_schema_allows_what_the_parser_reads() -> None:
    schema = hints_schema([3, 5])
    item = schema["properties"]["hints"]["items"]
    assert item["properties"]["id"]["enum"] == [3, 5]
    axes = [item["properties"][axis]["enum"] for axis in "xyz"]
    for x, y, z in itertools.product(*axes):
        assert parse_hints(hint(x=x, y=y, z=z))
    assert set(item["required"]) == set(json.loads(hint())["hints"][0])
