"""A Hugging Face hub on 127.0.0.1 with one model: what huggingface_hub asks of it, and what was asked."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_http import QuietHandler, local_server

ID, COMMIT, REVISIONS = "owner/reranker", "0123456789abcdef0123456789abcdef01234567", ("main", "v1")


@contextmanager
def hub_server(folder: Path, asked: list[str]) -> Iterator[str]:
    """The endpoint of a hub that has the files of a folder as `ID`, and lets nobody into owner/gated."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/owner/gated"):
                return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
            if path in {f"/api/models/{ID}/revision/{name}" for name in (*REVISIONS, COMMIT)}:
                about = {"id": ID, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                return self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})
            if path == f"/api/models/{ID}/tree/{COMMIT}":
                tree = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in files]
                return self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
            start = f"/{ID}/resolve/{COMMIT}/"
            if path.startswith(start) and path.removeprefix(start) in files:
                content = (folder / path.removeprefix(start)).read_bytes()
                etag = hashlib.sha256(content).hexdigest()
                return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})

        do_HEAD = do_GET

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with local_server(Handler) as address:
        yield address
