from pathlib import Path

import pytest

from jobs.engine import chunked_run as chunked
from jobs.engine.chunked_run import staging
from jobs.maintain import MaintainConfig, table_of
from jobs.maintain import run as maintain
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, InputError

NOW = {"retention_hours": 0.0, "allow_short_retention": True}


def test_small_files_become_few_and_old_ones_go(spark, warehouse, student_folder):
    run(spark, ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", chunks=2))
    scores = warehouse.table("scores")
    before = sorted(map(tuple, scores.read().collect()))
    detail = scores.detail("numFiles", "clusteringColumns")
    assert detail["numFiles"] == 2, "one file per chunk"
    assert detail["clusteringColumns"] == ["passage_id"]

    cares = {
        care.name: care
        for care in maintain(spark, MaintainConfig(warehouse=warehouse.root, tables=["scores", "runs"], **NOW))
    }

    assert (cares["scores"].files_before, cares["scores"].files_after, cares["scores"].removed) == (2, 1, 2)
    assert cares["runs"].files_after == 1
    assert len(list(Path(scores.location).glob("*.parquet"))) == 1
    assert sorted(map(tuple, scores.read().collect())) == before
    assert "2 → 1" in table_of(list(cares.values()))


def test_vacuum_waits_for_a_run_that_reads_an_old_version(spark, warehouse, student_folder, sample_pairs, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    config = ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", run_id="cut-off")
    with monkeypatch.context() as patch:
        patch.setattr(chunked, "commit_chunk", die)
        with pytest.raises(KeyboardInterrupt):
            run(spark, config)
    care = MaintainConfig(warehouse=warehouse.root, tables=["pairs"], optimize=False, **NOW)
    maintain(spark, care)  # the version that it reads is the newest: nothing of it goes

    warehouse.table("pairs").overwrite(spark.createDataFrame(sample_pairs[:3]))
    with pytest.raises(InputError, match=r"run cut-off is started and reads version 0 of .*pairs, whose files VACUUM"):
        maintain(spark, care)
    staging(warehouse, chunked.Ledger(warehouse.table("runs")).states()[0].run, "pairs").overwrite(
        spark.createDataFrame(sample_pairs[:3])
    )
    maintain(spark, care)  # it has a copy of its own


def test_retention_that_is_not_safe():
    with pytest.raises(ConfigError, match=r"--retention-hours is 24; under 168 a running job or reader may lose"):
        MaintainConfig(retention_hours=24)


def test_no_tables(spark, tmp_path):
    with pytest.raises(InputError, match=r"has none of the tables .*scores, soft_labels, ranked_passages"):
        maintain(spark, MaintainConfig(warehouse=str(tmp_path)))
