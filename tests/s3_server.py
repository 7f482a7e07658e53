"""A real S3 server on loopback, moto's, as a process of its own; tests that need it are skipped where it is missing."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_http import free_port

KEY, SECRET = "AKIDLOOPBACK", "hush-hush-hush"


@contextmanager
def s3_server(log: Path) -> Iterator[dict[str, str]]:
    """Starts the server and ends it; gives the variables by which clients reach it.

    Raises:
        RuntimeError: it does not come up.
    """
    port = free_port()
    with log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        _wait(port, server, log)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",  # or a wrong key would be looked for on the network
            "NO_PROXY": os.environ.get("NO_PROXY", "") + ",127.0.0.1",
        }
    finally:
        server.kill()
        server.wait()


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not come up: {log.read_text()[-2000:]}")
