"""A stand-in for a Kubernetes API server on loopback: it keeps what is made, and runs nothing."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlparse


class ApiServer:
    """Enough of the API for Spark to make its pods: create, apply, get, list, delete; no watch.

    Attributes:
        made: by kind, such as `pods`, the objects that were made, as they were sent.
    """

    def __init__(self) -> None:
        self.made: dict[str, list[dict[str, Any]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Its address; `/made/KIND` below it tells what was made of a kind."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, object]:
        """Status and body of the answer to a request."""
        parts = urlparse(path).path.strip("/").split("/")
        if parts[0] == "made":
            return 200, self.made.get(parts[1], [])
        # /api/v1/namespaces/NAMESPACE/KIND[/NAME]
        kind, name = (parts[4], parts[5] if len(parts) > 5 else None) if len(parts) > 4 else (parts[-1], None)
        of_kind = self.made.setdefault(kind, [])
        if method in ("POST", "PATCH", "PUT") and body is not None:
            body["metadata"].setdefault("namespace", parts[3])  # as the path says
            of_kind.append(body)
            metadata = {"uid": f"uid-{len(of_kind)}", "resourceVersion": "1", **body["metadata"]}
            return 201, {**body, "metadata": metadata}
        if method == "DELETE":
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if name is None:
            return 200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}
        found = [one for one in of_kind if one["metadata"].get("name") == name]
        return (200, found[-1]) if found else (404, {"kind": "Status", "apiVersion": "v1", "code": 404})


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = server.answer(self.command, self.path, body)
            sent = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _do

        def log_message(self, *arguments: object) -> None:
            """Nothing on the terminal."""

    return Handler
