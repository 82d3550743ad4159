"""Direction hints from a vision-language model: any server that speaks OpenAI's chat completions.

Paper: MoMaps, Sec. 3.4.2 and Fig. 4 (B-2): the model sees the first frame and the sentence, learns the language from
examples in its context, and writes the hints. Here the picture has its instances outlined and numbered, so that the
answer can name them. Nothing is sent anywhere unless `VlmConfig.base_url` is set.

Reference: platform.openai.com/docs/api-reference/chat/create; the same interface is served by vLLM, llama.cpp, Ollama
and others. Plain urllib: no client library, no redirects (a key must not follow one to another host).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from momap_ros.config import VlmConfig
from momap_ros.hints import AXES, AXIS_WORDS, STAY, HintError, Hints, example, hints_schema, hints_to_json, parse_hints
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame, UInt8
from momap_ros.visualization import overlay_instances

MAX_ANSWER_BYTES = 1 << 20
PICTURE_WIDTH = 640
_JPEG_QUALITY = 85
_CHUNK_BYTES = 1 << 16
# The server may do better next time: busy, overloaded, or failed.
_TEMPORARY_STATUS = (408, 409, 425, 429)
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", flags=re.DOTALL)


class VlmError(RuntimeError):
    """No hints could be had from the model; the message says why and what to do."""


class _TemporaryError(Exception):
    """What another attempt may cure."""


@dataclass(frozen=True, eq=False)
class AnsweredQuestion:
    """One example in the model's context.

    Attributes:
        picture: (H, W, 3) RGB, as `annotated_picture` makes it.
        prompt: the sentence.
        hints: the true answer.
    """

    picture: UInt8
    prompt: str
    hints: Mapping[int, Sequence[int]]


def annotated_picture(frame: RGBDFrame, instances: InstanceMap) -> UInt8:
    """(H, W, 3) RGB picture with every instance outlined and numbered by its id."""
    return overlay_instances(frame, instances, min_width=PICTURE_WIDTH)


def ask_for_hints(
    picture: UInt8,
    prompt: str,
    ids: Sequence[int],
    config: VlmConfig,
    *,
    examples: Sequence[AnsweredQuestion] = (),
) -> Hints:
    """Ask the model where the instances will go; waits for the answer, so never call it in a callback.

    A failing server, a late answer, an answer that is no hint or names other instances: asked again after a pause that
    doubles each time, at most `config.max_attempts` times. A refused request is not repeated.

    Args:
        picture: (H, W, 3) RGB with numbered instances.
        prompt: the sentence that says what will happen.
        ids: instances that are numbered in the picture.
        config: which server and model, how long and how often.
        examples: questions with their answers, shown first.

    Returns:
        Instance id -> direction flags; instances that the model says nothing of are left out.

    Raises:
        ValueError: no server or model is configured.
        VlmError: no usable answer.
    """
    if not config.base_url.startswith(("http://", "https://")) or not config.model:
        raise ValueError(
            f"vlm: expected base_url http://... or https://... and a model, got {config.base_url!r} and "
            f"{config.model!r}; set vlm.base_url and vlm.model"
        )
    body = json.dumps(_request(picture, prompt, ids, config, examples=examples)).encode()
    failure = ""
    for attempt in range(config.max_attempts):
        if attempt:
            time.sleep(config.backoff_s * 2 ** (attempt - 1))
        try:
            return _hints_in(_post(body, config), ids)
        except (_TemporaryError, HintError) as error:
            failure = str(error)
    raise VlmError(
        f"vlm: expected hints from {config.model} at {config.base_url}, got none in {attempt + 1} attempts; "
        f"the last one: {failure}"
    )


def _request(
    picture: UInt8, prompt: str, ids: Sequence[int], config: VlmConfig, *, examples: Sequence[AnsweredQuestion]
) -> dict[str, Any]:
    """The body of the request."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": _instructions()}]
    for answered in examples:
        messages.append(_question(answered.picture, answered.prompt, list(answered.hints)))
        messages.append({"role": "assistant", "content": hints_to_json(answered.hints)})
    messages.append(_question(picture, prompt, ids))
    request: dict[str, Any] = {"model": config.model, "messages": messages, "temperature": 0}
    if config.structured_output:
        schema = {"name": "motion_hints", "strict": True, "schema": hints_schema(ids)}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def _instructions() -> str:
    axes = "; ".join(f"{axis}: {low}, {STAY} or {high}" for axis, (low, high) in zip(AXES, AXIS_WORDS, strict=True))
    return (
        "You see a robot's camera image before something happens. Every object has an outline and a number. A sentence "
        "says what will happen. For every object that the sentence moves, and for the robot if it is numbered, say how "
        "its position at the end differs from now, as seen in the image: right is right in the image, up is up in the "
        f"image, away is farther from the camera. Axes: {axes}. Leave out objects that you are not sure about. "
        f"Answer with JSON alone, like {example()}"
    )


def _question(picture: UInt8, prompt: str, ids: Sequence[int]) -> dict[str, Any]:
    import cv2

    options = [int(cv2.IMWRITE_JPEG_QUALITY), _JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    url = f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
    numbers = ", ".join(str(instance_id) for instance_id in ids)
    text = {"type": "text", "text": f"Numbers in the image: {numbers}. What will happen: {prompt}"}
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, text]}


def _hints_in(answer: bytes, ids: Sequence[int]) -> Hints:
    """The hints in a server's answer; a model that puts its JSON into a code block is understood, too.

    Raises:
        _TemporaryError: the answer is not a chat completion.
        HintError: the model did not write hints for these instances.
    """
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _TemporaryError(f"expected a chat completion, got {answer[:200]!r}") from error
    if not isinstance(content, str):
        raise _TemporaryError(f"expected text from the model, got {content!r:.200}")
    fenced = _FENCED.fullmatch(content)
    hints = parse_hints(fenced[1] if fenced else content)
    unknown = [instance_id for instance_id in hints if instance_id not in ids]
    if unknown:
        raise HintError(f"hints: expected instances among {list(ids)}, got {unknown}")
    return hints


def _post(body: bytes, config: VlmConfig) -> bytes:
    """Send one request and read the whole answer.

    Raises:
        _TemporaryError: no answer in time, or one that says to try again.
        VlmError: the request was refused.
    """
    headers = {"Content-Type": "application/json"}
    key = os.environ.get(config.api_key_variable, "") if config.api_key_variable else ""
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{config.base_url.rstrip('/')}/chat/completions", body, headers)
    deadline = time.monotonic() + config.timeout_s
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=config.timeout_s) as response:
            return _read(response, deadline, config.timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            said = f"{error.code} {error.reason}: {error.read(200).decode(errors='replace')}"
        if error.code in _TEMPORARY_STATUS or error.code >= 500:
            raise _TemporaryError(said) from error
        raise VlmError(
            f"vlm: the server at {config.base_url} refused the request: {said}; check vlm.base_url, vlm.model and the "
            f"key in ${config.api_key_variable}, and vlm.structured_output where it has no JSON schemas"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        raise _TemporaryError(f"{type(error).__name__}: {error}") from error


def _read(response: Any, deadline: float, timeout_s: float) -> bytes:  # noqa: ANN401  (urllib has no public type for it)
    """The body of a response, within the time and size that are allowed."""
    parts: list[bytes] = []
    while part := response.read1(_CHUNK_BYTES):
        parts.append(part)
        if sum(map(len, parts)) > MAX_ANSWER_BYTES:
            raise _TemporaryError(f"expected an answer of at most {MAX_ANSWER_BYTES} bytes, got more")
        # The socket's own timeout begins anew with every byte.
        if time.monotonic() > deadline:
            raise _TemporaryError(f"expected the whole answer within {timeout_s} s, got a part of it")
    return b"".join(parts)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Answers a redirect with an error instead of sending the key elsewhere."""

    def redirect_request(self, *arguments: object) -> None:
        """No request instead of the redirected one."""
        del arguments
