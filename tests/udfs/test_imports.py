"""A Python worker imports while Spark plans, and is the one that then works."""

import sys
import time

import pyarrow as pa
import pytest

from udfs import imports
from udfs.imports import import_ahead, module_of
from udfs.scoring import ScoringSettings

UNUSED = "mailbox"  # of the standard library, which nothing else here imports


def test_worker_has_the_modules_when_it_is_asked_to_work(spark, monkeypatch):
    def there(_batches):
        end = time.monotonic() + 60
        while UNUSED not in sys.modules and time.monotonic() < end:
            time.sleep(0.05)
        yield pa.RecordBatch.from_pydict({"there": [UNUSED in sys.modules]})

    monkeypatch.setattr(imports, "module_of", lambda _settings: UNUSED)
    import_ahead(spark, ScoringSettings("model", "version"), 1).join()
    assert spark.range(0, 1, 1, 1).mapInArrow(there, "there boolean").first()["there"]


def test_module_that_cannot_be_imported_is_left_to_the_scoring(spark, monkeypatch):
    monkeypatch.setattr(imports, "module_of", lambda _settings: "no.such.module")
    import_ahead(spark, ScoringSettings("model", "version"), 1).join()
    assert spark.range(1).count() == 1


@pytest.mark.parametrize(
    ("backend", "export", "module"),
    [("auto", None, "torch"), ("torch", "ir", "torch"), ("auto", "ir", "openvino"), ("openvino", "ir", "openvino")],
)
def test_module_is_that_of_the_backend(backend, export, module):
    settings = ScoringSettings("model", "version", backend, export_version=export)
    assert module_of(settings) == f"mkdm.scoring.{module}_backend"
