"""The code of docs/policies.md runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, serving

BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
TITLE = re.compile(r"^## (.+)$", flags=re.MULTILINE)


@pytest.mark.slow
def test_every_example_runs(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gymnasium", reason="needs the extra policy")
    page = (repository / "docs/policies.md").read_text(encoding="utf-8")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    names: dict[str, Any] = {}
    ran = []
    with serving(Answer('{"hints": []}'), Answer('{"hints": []}')) as chat:
        monkeypatch.setenv("VLM_URL", chat.base_url)
        for found in BLOCK.finditer(page):
            title = TITLE.findall(page[: found.start()])[-1]
            exec(compile(found[1], f"docs/policies.md, {title}", "exec"), names)
            ran.append(title)
        assert len(chat.requests) == 1
    assert ran == [
        "A forecast", "im2Flow2Act", "ATM", "Dream2Flow", "General Flow", "LeRobot", "Gymnasium",
        "Hints: the other direction", "Hints by a vision-language model",
    ]  # fmt: skip
    assert capsys.readouterr().out == "none\n"
    assert set(names["moving"]) <= set(names["instances"].areas_px)
