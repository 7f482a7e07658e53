import re

import pytest
from tiny_models import SAMPLE

from jobs import benchmark
from jobs.benchmark import BenchmarkConfig, run
from mkdm.errors import ConfigError, InputError, RunFailedError


@pytest.mark.slow
def test_three_sides_on_the_same_pairs(student_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path / "benchmark")
    table = run(BenchmarkConfig(model=student_folder, pairs=str(SAMPLE / "pairs.parquet"), rows=60))
    assert table.startswith("60 pairs, medians of 1 round(s)")
    rates = {side: float(re.search(rf"^{side} +\w+ +([\d.]+)", table, re.MULTILINE)[1]) for side in benchmark.SIDES}
    assert min(rates.values()) > 0
    assert re.search(r"peak memory: JVM [\d,]{3,} MB, Python worker [\d,]{3,} MB; scorer alone [\d,]{3,} MB", table)


def test_side_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path / "benchmark")
    with pytest.raises(RunFailedError, match="exited 2: error: no model folder at nowhere"):
        run(BenchmarkConfig(model="nowhere", pairs=str(SAMPLE / "pairs.parquet"), rows=1))


def test_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path / "benchmark")
    with pytest.raises(InputError, match="no Parquet file of pairs at nowhere"):
        run(BenchmarkConfig(model="m", pairs="nowhere"))
    with pytest.raises(ConfigError, match="--rows is 0"):
        BenchmarkConfig(model="m", pairs="p", rows=0)
