"""Imports what scoring needs in Spark's Python workers while Spark still plans: torch alone takes them seconds."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from threading import Thread

import pyarrow as pa
from pyspark.sql import SparkSession

from udfs.scoring import ScoringSettings


def import_ahead(spark: SparkSession, settings: ScoringSettings, workers: int) -> Thread:
    """Have the Python workers that will score import the libraries of their backend; nothing waits for that.

    A short task of each worker starts a thread in it, and ends. Spark keeps the worker for the scoring, which finds
    the modules there, or waits for those that are on their way. No model is loaded. What fails here shows there.

    Args:
        workers: how many tasks run at once.

    Returns:
        The thread that runs these tasks.
    """
    run = _starter(module_of(settings))

    def start() -> None:
        with suppress(Exception):
            spark.range(0, workers, 1, workers).mapInArrow(run, "id long").collect()

    thread = Thread(target=start, daemon=True)
    thread.start()
    return thread


def module_of(settings: ScoringSettings) -> str:
    """The backend's module: what `auto` takes wherever the model and the settings leave the choice."""
    if settings.runs_as is not None:
        return f"mkdm.scoring.{'openvino' if settings.runs_as.startswith('openvino') else 'torch'}_backend"
    if settings.export_version is not None and settings.backend in ("auto", "openvino"):
        return "mkdm.scoring.openvino_backend"
    return "mkdm.scoring.torch_backend"


def _starter(module: str) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def start(rows: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        Thread(target=_import, args=(module,), daemon=True).start()
        for _ in rows:  # to the end, or else Spark gives the worker up
            pass
        return iter(())

    return start


def _import(module: str) -> None:
    with suppress(Exception):
        import_module("mkdm.scoring.scorer")
        import_module(module)
