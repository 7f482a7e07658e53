import gc
import sys
import zipfile
from importlib import import_module, invalidate_caches
from zipimport import zipimporter

import pytest

from udfs.workers import keep_for_good, one_task


@pytest.fixture
def zipped(tmp_path, monkeypatch):
    """Two modules in a zip on Python's path, as pyspark is in a worker."""
    path = tmp_path / "modules.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zipped_first.py", "value = 1")
        archive.writestr("zipped_second.py", "value = 2")
    monkeypatch.syspath_prepend(str(path))
    yield path
    for name in ("zipped_first", "zipped_second"):
        sys.modules.pop(name, None)


def test_no_zip_is_read_anew_at_the_start_of_the_next_task(zipped, monkeypatch):
    def task(module):
        yield import_module(module).value

    reads = []
    monkeypatch.setattr(zipimporter, "invalidate_caches", lambda finder: reads.append(finder.archive))
    assert list(one_task(task("zipped_first"))) == [1]
    invalidate_caches()  # as pyspark does
    assert reads == []
    assert list(one_task(task("zipped_second"))) == [2], "what a task imports is found as before"


def test_nothing_is_left_to_read_after_a_task_that_failed_or_was_cut_off(zipped):
    def task():
        yield import_module("zipped_first").value
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        list(one_task(task()))
    assert not any(isinstance(finder, zipimporter) for finder in sys.path_importer_cache.values())
    cut_off = one_task(task())
    next(cut_off)
    cut_off.close()
    assert not any(isinstance(finder, zipimporter) for finder in sys.path_importer_cache.values())


def test_what_is_kept_is_not_looked_at_again():
    before = gc.get_freeze_count()
    kept = [[number] for number in range(1000)]
    keep_for_good()
    try:
        assert gc.get_freeze_count() - before >= 1000
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()
