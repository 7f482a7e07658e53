"""`mkdm serve` as a process of its own on 127.0.0.1, and a client of it."""

import json
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Self

START_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """Status, JSON or text, and headers of a response."""

    status: int
    body: Any
    headers: dict[str, str]

    def scores(self) -> list[float]:
        """By document, its score."""
        return [one["relevance_score"] for one in sorted(self.body["results"], key=lambda one: one["index"])]


class RerankServer:
    """A server with a model, and the flags of `mkdm serve`; its lines on stderr are in `lines`."""

    def __init__(self, model: str, *flags: str) -> None:
        command = [sys.executable, "-m", "jobs.serve", "--model", model, "--port", "0", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        try:
            while "serving " not in (line := self._said.get(timeout=START_SECONDS)):
                if self.process.poll() is not None:
                    break
        except queue.Empty:
            self.process.kill()
            raise
        assert "serving " in line, self.lines
        self.url = line.split(" at ")[1].strip()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._said.put(line)
        self._said.put("")

    def stop(self, seconds: float = 30) -> int:
        """Send SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def get(self, path: str) -> Answer:
        """A GET."""
        return self._send(urllib.request.Request(self.url + path))

    def post(self, body: bytes, path: str = "/rerank") -> Answer:
        """A POST of a body as it is."""
        return self._send(urllib.request.Request(self.url + path, body, {"content-type": "application/json"}))

    def rerank(self, query: str, documents: list[Any], **fields: Any) -> Answer:
        """A POST of a query and documents."""
        return self.post(json.dumps({"query": query, "documents": documents, **fields}).encode())

    def metric(self, name: str) -> float:
        """A figure of /metrics, such as mkdm_pairs_total{source="view"}."""
        lines = self.get("/metrics").body.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

    @staticmethod
    def _send(request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, text, headers = response.status, response.read().decode(), response.headers
        except urllib.error.HTTPError as error:
            status, text, headers = error.code, error.read().decode(), error.headers
        is_json = headers.get("content-type", "").startswith("application/json")
        return Answer(status, json.loads(text) if is_json else text, {k.lower(): v for k, v in headers.items()})
