"""What a server counts, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Metrics:
    """Counters of one server, in a registry of its own.

    Attributes:
        requests: answers by status of HTTP.
        seconds: of a request, from its first byte to the answer.
        pairs: scored pairs by source: model or view.
        batch_pairs, batch_seconds: of each call of the scorer.
        waiting: pairs in the queue.
        refused: requests that found the queue full.
        view_version: of `ranked_passages` in the view.
        view_errors: look-ups that the file did not answer.
        model: name, version, precision.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # a time of birth for each figure, which nobody reads
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("mkdm_requests", "Answers by status of HTTP.", ["status"], registry=registry)
        self.seconds = Histogram("mkdm_request_seconds", "Of a request.", buckets=_SECONDS, registry=registry)
        self.pairs = Counter("mkdm_pairs", "Scored pairs by source.", ["source"], registry=registry)
        self.batch_pairs = Histogram("mkdm_batch_pairs", "Of a call of the scorer.", buckets=_PAIRS, registry=registry)
        self.batch_seconds = Histogram("mkdm_batch_seconds", "Of such a call.", buckets=_SECONDS, registry=registry)
        self.waiting = Gauge("mkdm_waiting_pairs", "In the queue.", registry=registry)
        self.refused = Counter("mkdm_refused", "Requests that found the queue full.", registry=registry)
        self.view_version = Gauge("mkdm_view_version", "Of ranked_passages in the view.", registry=registry)
        self.view_errors = Counter("mkdm_view_errors", "Look-ups without an answer.", registry=registry)
        self.model = Info("mkdm_model", "What is served.", registry=registry)
