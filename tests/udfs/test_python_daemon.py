"""Python workers of a session on this machine come of our daemon, and still find what a user gives out later."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.classic


def test_a_worker_has_nothing_to_read_or_collect_anew(spark):
    def look(_batches):
        import gc
        import sys
        from importlib import invalidate_caches
        from zipimport import zipimporter

        import pyarrow as pa

        read = []
        for finder in sys.path_importer_cache.values():
            if isinstance(finder, zipimporter):
                finder._files = read  # which reading anew would put another in place of
        invalidate_caches()
        zips = [finder for finder in sys.path_importer_cache.values() if isinstance(finder, zipimporter)]
        same = all(finder._files is read for finder in zips)
        facts = [sys.modules["__main__"].__spec__.name, str(bool(zips) and same), str(gc.get_freeze_count() > 10_000)]
        sys.path_importer_cache.clear()
        yield pa.RecordBatch.from_pydict({"fact": facts})

    found = [row.fact for row in spark.range(0, 1, 1, 1).mapInArrow(look, "fact string").collect()]
    assert found == ["udfs.python_daemon", "True", "True"]


def test_packages_of_our_names_in_the_folder_of_a_command_are_not_taken_for_ours(tmp_path, student_folder):
    for name in ("udfs", "jobs", "cluster"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a package of the user')")
    pairs = pd.DataFrame({"query_id": ["q"], "passage_id": ["p"], "query": ["what"], "passage": ["that"]})
    pairs.to_parquet(tmp_path / "pairs.parquet")
    command = [Path(sys.executable).with_name("mkdm"), "score", "--model", student_folder, "--warehouse", "w"]
    done = subprocess.run([*command, "--pairs", "pairs.parquet"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(pq.read_table(tmp_path / "w" / "scores")) == 1


def test_modules_that_are_given_out_later_are_found(spark, tmp_path):
    def task(number):
        def ask(_batches):
            import pyarrow as pa

            module = __import__(f"given_out_{number}")
            yield pa.RecordBatch.from_pydict({"value": [module.value]})

        return spark.range(0, 1, 1, 1).mapInArrow(ask, "value long").first().value

    for number in (1, 2):
        path = tmp_path / f"given_out_{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"given_out_{number}.py", f"value = {number}")
        spark.addArtifacts(str(path), pyfile=True)
        assert task(number) == number
