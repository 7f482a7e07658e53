"""Answers `POST /rerank` with one model, the head and body from the follower's view: `mkdm serve`. No Spark."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from mkdm.config import parse_config, require_at_least, run_command
from mkdm.errors import ConfigError
from udfs.serving import serve


@dataclass(frozen=True)
class ServeConfig:
    """Serve a model over HTTP, POST /rerank, as rerank clients ask: query and documents in, scores in [0, 1] out.

    Raises:
        ConfigError: a number outside its range.
    """

    model: str
    """Folder or URI of the model; several joined by commas are averaged."""
    name: str | None = None
    """What requests may call the model, besides its version, and responses do; default: its folder's name."""
    view: str | None = None
    """SQLite file of mkdm follow: pairs that it has are answered from it, if they are of this model's version."""
    host: str = "127.0.0.1"
    """Address to listen on. There is no password: what is not for everybody belongs behind a proxy."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    backend: Literal["auto", "torch", "torch-compile", "openvino"] = "auto"
    """What runs the model; auto: openvino where there are exported files and no GPU, else torch."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """auto: the fastest that the machine has, of exported files the fastest that passed its gate."""
    max_length: int | None = None
    """Tokens of a pair at most; default: as the model was trained."""
    threads: int | None = None
    """Cores to use; default: all."""
    streams: int | None = 1
    """Batches that share them: 1 answers one request soonest, null scores the most pairs a second."""
    queue_pairs: int = 2000
    """Pairs that may wait; a request beyond that is told 429 and when to ask again."""
    batch_pairs: int = 64
    """Pairs of one call of the model at most; a request with more is a call of its own."""
    batch_window: float = 0.0
    """Milliseconds that the first request of a call waits for others. Those that come while the model is busy go
    together anyway."""
    timeout: float = 10.0
    """Seconds after which a request is told 504; one that still waits is then taken out of the queue."""
    max_documents: int = 1000
    """Documents of a request at most."""
    max_bytes: int = 4_194_304
    """Bytes of a request at most."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "threads", "streams", "queue_pairs", "batch_pairs", "max_documents", "max_bytes")
        require_at_least(self, 1, "max_length")
        require_at_least(self, 0, "batch_window")
        if not self.timeout > 0:
            raise ConfigError(f"--timeout is {self.timeout}; it must be above 0")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port is {self.port}; it must lie in 0 to 65535")
        if self.max_documents > self.queue_pairs:
            raise ConfigError(
                f"--max-documents {self.max_documents} is more than --queue-pairs {self.queue_pairs}: such a request "
                f"would never find room"
            )


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT; then what is queued is answered first.

    Raises:
        ConfigError: the port is taken, or a setting that the model or machine cannot meet.
        ModelError: the model does not load.
        InputError: the view is missing or no view.
    """
    settings = asdict(config)
    settings["window"] = settings.pop("batch_window") / 1000
    serve(say=lambda line: print(line, file=sys.stderr, flush=True), **settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve from the command line."""
    (config,) = parse_config("mkdm serve", argv, ServeConfig)
    run(config)


if __name__ == "__main__":
    run_command(main)
