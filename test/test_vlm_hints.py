"""Hints from a language model: a real HTTP server answers well, badly, late, or not at all."""

from __future__ import annotations

import base64
import dataclasses
import time
from typing import Any

import cv2
import numpy as np
import pytest
from chat_server import Answer, ChatServer, serving

from momap_ros.config import VlmConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.hints import HintError, Hints, hints_schema, hints_to_json, parse_hints
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.vlm_hints import AnsweredQuestion, VlmError, annotated_picture, ask_for_hints

GOOD = '{"hints": [{"id": 4, "x": "right", "y": "up", "z": "stay"}]}'
KEY = "MOMAP_TEST_KEY"
PICTURE = np.full((48, 64, 3), (200, 60, 30), np.uint8)


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback interface is never asked for through a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(KEY, raising=False)


def ask(chat: ChatServer, **changes: Any) -> Hints:  # noqa: ANN401  (settings of any type)
    config = VlmConfig(base_url=chat.base_url, model="small-vlm", api_key_variable=KEY, backoff_s=0.01, timeout_s=30.0)
    return ask_for_hints(PICTURE, "lift the cup", [4, 7], dataclasses.replace(config, **changes))


def test_the_question_holds_picture_sentence_numbers_and_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    with serving(Answer(GOOD)) as chat:
        assert ask(chat) == {4: (1, -1, 0)}
    (request,) = chat.requests
    assert chat.paths == ["/v1/chat/completions"]
    assert chat.headers[0]["Authorization"] == "Bearer secret"
    assert request["model"] == "small-vlm"
    assert request["response_format"]["json_schema"]["schema"] == hints_schema([4, 7])
    system, question = request["messages"]
    assert all(word in system["content"] for word in ("left", "right", "up", "down", "closer", "away", "stay"))
    image, text = question["content"]
    assert "lift the cup" in text["text"]
    assert "4, 7" in text["text"]
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_allclose(decoded[..., ::-1].astype(int), PICTURE, atol=8)


def test_no_key_and_no_schema_where_none_is_wanted() -> None:
    with serving(Answer(f"```json\n{GOOD}\n```")) as chat:
        assert ask(chat, structured_output=False) == {4: (1, -1, 0)}
    assert "Authorization" not in chat.headers[0]
    assert "response_format" not in chat.requests[0]


def test_examples_come_first_with_their_answers() -> None:
    config = VlmConfig(model="m")
    answered = AnsweredQuestion(PICTURE, "push the box", {2: (-1, 0, 0)})
    with serving(Answer(GOOD)) as chat:
        config = dataclasses.replace(config, base_url=chat.base_url)
        ask_for_hints(PICTURE, "lift the cup", [4], config, examples=[answered])
    roles = [message["role"] for message in chat.requests[0]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert parse_hints(chat.requests[0]["messages"][2]["content"]) == {2: (-1, 0, 0)}


@pytest.mark.parametrize(
    "bad",
    [
        Answer("the cup goes up"),
        Answer('{"hints": [{"id": 4, "x": "north", "y": "up", "z": "stay"}]}'),
        Answer('{"hints": [{"id": 99, "x": "left", "y": "up", "z": "stay"}]}'),
        Answer(raw=b"not json at all"),
        Answer(raw=b'{"choices": []}'),
        Answer(raw=b'{"choices": [{"message": {"content": null}}]}'),
        Answer(status=500),
        Answer(status=429),
        Answer(raw=b"x" * (2 << 20)),
    ],
    ids=["prose", "schema", "id", "json", "choices", "null", "500", "429", "endless"],
)
def test_a_bad_answer_is_asked_for_again(bad: Answer) -> None:
    with serving(bad, Answer(GOOD)) as chat:
        assert ask(chat) == {4: (1, -1, 0)}
    assert len(chat.requests) == 2


def test_pauses_double_and_attempts_end() -> None:
    with serving(Answer(status=503, raw=b"busy")) as chat:
        started = time.monotonic()
        with pytest.raises(VlmError, match="got none in 3 attempts; the last one: 503 Service Unavailable: busy"):
            ask(chat, backoff_s=0.1)
        assert time.monotonic() - started >= 0.1 + 0.2
    assert len(chat.requests) == 3


def test_a_refused_request_is_not_repeated() -> None:
    message = rf"refused the request: 401 Unauthorized: who are you.*\${KEY}"
    with serving(Answer(status=401, raw=b"who are you"), Answer(GOOD)) as chat, pytest.raises(VlmError, match=message):
        ask(chat)
    assert len(chat.requests) == 1


def test_the_key_does_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    with serving(Answer(GOOD)) as other:
        moved = Answer(status=302, headers={"Location": f"{other.base_url}/chat/completions"})
        with serving(moved) as chat, pytest.raises(VlmError, match="refused the request: 302"):
            ask(chat)
        assert not other.requests


@pytest.mark.parametrize("late", [Answer(GOOD, delay_s=1.0), Answer(GOOD, drip_s=0.1)], ids=["silent", "dripping"])
def test_a_late_answer_is_given_up(late: Answer) -> None:
    with serving(late) as chat:
        started = time.monotonic()
        with pytest.raises(VlmError, match=r"got none in 1 attempts"):
            ask(chat, timeout_s=0.3, max_attempts=1)
        assert time.monotonic() - started < 0.9


def test_nothing_is_asked_without_a_server_and_a_model() -> None:
    for config in (VlmConfig(), VlmConfig(base_url="http://localhost:1"), VlmConfig(base_url="file:///x", model="m")):
        with pytest.raises(ValueError, match="expected base_url http"):
            ask_for_hints(PICTURE, "lift the cup", [4], config)


def test_an_unreachable_server_is_named() -> None:
    with serving(Answer()) as chat:
        pass
    with pytest.raises(VlmError, match=rf"small-vlm at {chat.base_url}, got none in 2 attempts.*refused"):
        ask(chat, max_attempts=2)


def test_the_picture_shows_every_instance() -> None:
    ids = np.zeros((60, 80), np.int32)
    ids[10:30, 10:30], ids[35:55, 40:70] = 4, 7
    frame = RGBDFrame(
        np.full((60, 80, 3), 128, np.uint8),
        np.ones((60, 80), np.float32),
        PinholeCamera(80, 60, 70.0, 70.0, 39.5, 29.5),
    )
    picture = annotated_picture(frame, InstanceMap(ids))
    assert picture.shape == (480, 640, 3)
    changed = (picture != 128).any(axis=-1).reshape(60, 8, 80, 8).any(axis=(1, 3))
    assert changed[ids > 0].all()
    assert not changed[:5].any()


def test_what_is_sent_as_an_example_is_understood_here() -> None:
    with pytest.raises(HintError):
        parse_hints("{}")
    assert parse_hints(hints_to_json({4: (0, 0, -1)})) == {4: (0, 0, -1)}
