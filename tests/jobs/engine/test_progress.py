import pytest
from pyspark.sql import functions as F

from cluster.classic import row_counter
from jobs.engine import progress as module
from jobs.engine import score_pairs
from jobs.engine.progress import progress
from mkdm.model.folder import model_version
from udfs.scoring import ScoringSettings


@pytest.mark.classic
def test_rows_of_blocks_are_counted_as_python_returns_them(spark, student_folder, sample_pairs):
    settings = ScoringSettings(student_folder, model_version(student_folder))
    rows_done = row_counter(spark)
    assert rows_done() == 0
    dealt = F.explode(F.array(F.lit(0)))  # rows of the input are made so too, and are not counted
    pairs = spark.createDataFrame(sample_pairs).withColumn("dealt", dealt).drop("dealt")
    score_pairs(pairs, settings, 3).write.format("noop").mode("overwrite").save()
    assert rows_done() == 300


def test_log_has_plain_lines_with_rows_rate_and_eta(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    lines = module._Lines("scoring", 1000)
    for seconds, done in ((5, 100), (20, 200), (25, 300), (50, 1000), (51, 1000)):
        now[0] = float(seconds)
        lines.update(done)
    assert capsys.readouterr().err.splitlines() == [
        "scoring: 200 of 1,000 pairs, 10 pairs/s, 20 s so far, 80 s left",
        "scoring: 1,000 of 1,000 pairs, 20 pairs/s, 50 s so far, done",
    ]


def test_terminal_has_a_bar(capsys):
    bar = module._Bar("scoring", 1000)
    bar.update(250)
    bar.update(100)
    bar.close()
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "scoring:  25%" in shown
    assert "250/1000" in shown
    assert "pairs/s" in shown


def test_failure_inside_leaves_no_line_that_says_done(spark, capsys):
    try:
        with progress(spark, "scoring", 10):
            raise RuntimeError
    except RuntimeError:
        pass
    assert "done" not in capsys.readouterr().err
