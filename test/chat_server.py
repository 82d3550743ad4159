"""A chat-completions server on the loopback interface whose answers a test writes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server says to one request."""

    content: str = '{"hints": []}'
    status: int = 200
    raw: bytes | None = None
    delay_s: float = 0.0
    drip_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": self.content}}]}).encode()


class ChatServer:
    """Takes requests; the last answer is given again and again."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.base_url = ""
        self._lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
            self.requests.append(request)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
        try:
            time.sleep(answer.delay_s)
            handler.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            for start in range(0, len(answer.body), 8) if answer.drip_s else ():
                handler.wfile.write(answer.body[start : start + 8])
                time.sleep(answer.drip_s)
            if not answer.drip_s:
                handler.wfile.write(answer.body)
        except OSError:
            pass  # the other side did not wait
        finally:
            with self._lock:
                self.in_flight -= 1


@contextmanager
def serving(*answers: Answer) -> Iterator[ChatServer]:
    chat = ChatServer(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            chat.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    chat.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
