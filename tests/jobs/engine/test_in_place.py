"""What a build made is scored where it lies: by bucket, at its pinned versions, with the rows of a run that copies."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from delta_sql import update
from pyspark.sql import functions as F
from query_logs import sample_log

from jobs import build_pairs
from jobs.engine import Warehouse, scoring
from jobs.engine import chunked_run as chunked
from jobs.engine.blocks import rows_in_block
from jobs.engine.buckets import BUCKETS, bucket_of_document, chunk_of, dealt_in_order, in_bucket_order, in_chunk
from jobs.engine.chunks import InPlace
from jobs.engine.pairs import read_pairs
from jobs.funnel import BuildPairsConfig, selection, steps
from jobs.maintain import MaintainConfig
from jobs.maintain import run as maintain
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, RunFailedError
from tests.faults.outcome import outcome

LOG = sample_log()
CHUNKS = 3
ROWS_PER_TASK = 20
"""So that a chunk has several blocks and tasks."""


def build(warehouse: Warehouse, student_folder: str, log=LOG, **changes) -> None:
    log.write(warehouse.spark, warehouse)
    more = {"passage_tokens": 64, "segments": "all"} | changes
    build_pairs.run(warehouse.spark, BuildPairsConfig(student_folder, warehouse.root, **more))


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory, student_folder) -> Warehouse:
    """A warehouse whose pairs are built of LOG, in several files. To be copied, not used."""
    warehouse = Warehouse(spark, str(tmp_path_factory.mktemp("built") / "warehouse"))
    with in_small_files():
        build(warehouse, student_folder)
    return warehouse


@contextlib.contextmanager
def in_small_files() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "CANDIDATES_PER_TASK", 50)
        patch.setattr(steps, "PASSAGES_PER_FILE", 10)
        yield


class Tasks:
    """How blocks came to be scored: to how many tasks they were dealt, and how many pairs each of their tasks has."""

    def __init__(self, monkeypatch) -> None:
        self.seen: list[tuple[int | None, list[int]]] = []
        self._dealt = scoring.dealt
        monkeypatch.setattr(scoring, "dealt", self._watch)

    def _watch(self, blocks, tasks):
        by_task = blocks.groupBy(F.spark_partition_id()).agg(F.sum(rows_in_block()).alias("rows"))
        self.seen.append((tasks, [row["rows"] for row in by_task.collect()]))
        return self._dealt(blocks, tasks)

    def check(self) -> None:
        """They lie in tasks of the size that was asked for, and are not dealt once more."""
        assert len(self.seen) == CHUNKS
        for tasks, rows in self.seen:
            assert tasks is None
            assert len(rows) == -(-sum(rows) // ROWS_PER_TASK) > 1
            assert max(rows) < 2 * ROWS_PER_TASK


@pytest.fixture(scope="module")
def copied(spark, tmp_path_factory, built, student_folder):
    """What a run writes that copies its input."""
    root = shutil.copytree(built.root, tmp_path_factory.mktemp("copied") / "warehouse")
    with pytest.MonkeyPatch.context() as patch:
        tasks = Tasks(patch)
        run(spark, config_of(str(root), student_folder, copy_input="true"))
    tasks.check()
    return outcome(Warehouse(spark, str(root)))


@pytest.fixture
def warehouse(spark, tmp_path, built) -> Warehouse:
    return Warehouse(spark, str(shutil.copytree(built.root, tmp_path / "warehouse")))


def config_of(root: str, student_folder: str, **changes) -> ScoreConfig:
    chosen = {"precision": "fp32", "chunks": CHUNKS, "rows_per_task": ROWS_PER_TASK}
    return ScoreConfig(model=student_folder, warehouse=root, **chosen | changes)


def watched(monkeypatch) -> list[str]:
    """Which of them happens: a copy of the input."""
    copies, lay_out = [], chunked.lay_out

    def watch(pairs, run, *args):
        copies.append(run.run_id)
        return lay_out(pairs, run, *args)

    monkeypatch.setattr(chunked, "lay_out", watch)
    return copies


@pytest.mark.slow
def test_chunks_of_a_build_are_read_where_they_lie(spark, warehouse, copied, student_folder, monkeypatch):
    copies, tasks = watched(monkeypatch), Tasks(monkeypatch)
    report = run(spark, config_of(warehouse.root, student_folder))
    assert copies == []
    tasks.check()
    assert outcome(warehouse) == copied, "bit for bit"
    assert (report.run.chunks, report.totals.rows_read) == (CHUNKS, len(copied.scores) + len(copied.rejects))
    states = warehouse.table("runs").read().where("chunk IS NOT NULL AND job = 'score'").collect()
    assert sorted(row.chunk for row in states) == list(range(CHUNKS))
    assert min(row.rows_read for row in states) > 0


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_with_what_it_had_pinned(spark, warehouse, copied, student_folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    version = warehouse.table("pairs").latest_version()
    monkeypatch.setattr(chunked, "tell_spark", stop)
    with pytest.raises(KeyboardInterrupt):
        run(spark, config_of(warehouse.root, student_folder))
    monkeypatch.undo()
    changed = LOG.but(documents={"d0": "Another text. It has nothing of the one before.", "d1": None})
    build(warehouse, student_folder, changed, max_reject_rate=1.0)  # takes passages away, which the run goes on to need
    assert warehouse.table("pairs").latest_version() > version
    copies = watched(monkeypatch)
    report = run(spark, config_of(warehouse.root, student_folder, pairs_version=version))
    assert (report.totals.rows_read, copies) == (len(copied.scores) + len(copied.rejects), [])
    assert outcome(warehouse) == copied


def test_a_file_that_is_gone_ends_the_run_and_loses_nothing(spark, warehouse, student_folder, monkeypatch):
    commit, lost = chunked.commit_chunk, []

    def commit_and_lose(*args):
        totals = commit(*args)
        for path in Path(warehouse.root, "passages").glob("*.parquet"):
            lost.append(path.rename(path.with_suffix(".gone")))
        return totals

    monkeypatch.setattr(chunked, "commit_chunk", commit_and_lose)
    with pytest.raises(RunFailedError, match=r"passages.*gone"):
        run(spark, config_of(warehouse.root, student_folder))
    monkeypatch.undo()
    first = warehouse.table("scores").read().count()
    assert first > 0
    for path in lost:
        path.rename(path.with_suffix(".parquet"))
    copies = watched(monkeypatch)
    report = run(spark, config_of(warehouse.root, student_folder))
    keys = Counter(tuple(row) for row in warehouse.table("scores").read().select("query_id", "passage_id").collect())
    assert set(keys.values()) == {1}
    assert len(keys) == report.totals.rows_written > first
    assert copies == [], "the chunks were read where they lie"


@pytest.mark.slow
def test_what_is_not_in_order_is_copied_and_maintain_orders_it(
    spark, warehouse, copied, student_folder, monkeypatch, capsys
):
    monkeypatch.setattr("jobs.engine.chunks.FEW_FILES", 3)
    monkeypatch.setattr("jobs.engine.chunks.MOST_READS", 2)
    pairs = warehouse.table("pairs")
    rows = pairs.read().collect()
    pairs.delete("true")
    spark.createDataFrame(rows, pairs.read().schema).repartition(24, "query_id").write.format("delta").mode(
        "append"
    ).save(pairs.location)
    copies = watched(monkeypatch)
    run(spark, config_of(warehouse.root, student_folder))
    assert len(copies) == 1
    assert "are no more in order, and so are copied: mkdm maintain orders them" in capsys.readouterr().err
    assert outcome(warehouse) == copied
    care = maintain(spark, MaintainConfig(warehouse=warehouse.root, tables=["pairs"], vacuum=False))
    assert care[0].files_after < care[0].files_before
    run(spark, config_of(warehouse.root, student_folder))
    assert len(copies) == 1


@pytest.mark.slow
def test_rows_without_a_bucket_are_copied_or_refused(spark, warehouse, copied, student_folder, monkeypatch):
    pairs = warehouse.table("pairs")
    spark.sql(f"ALTER TABLE {pairs.sql_name} DROP CONSTRAINT bucket_of_document")  # as an earlier engine made it
    update(pairs, "pmod(xxhash64(query_id), 2) = 0", bucket=None)
    with pytest.raises(ConfigError, match="--copy-input false is for pairs that mkdm build-pairs of this version"):
        run(spark, config_of(warehouse.root, student_folder, copy_input="false"))
    copies = watched(monkeypatch)
    run(spark, config_of(warehouse.root, student_folder, run_id="old"))
    assert copies == ["old"]
    assert outcome(warehouse) == copied


def test_nobody_can_put_a_row_in_a_wrong_bucket(spark, warehouse):
    pairs = warehouse.table("pairs")
    row = pairs.read().limit(1).withColumn("query_id", F.lit("new"))
    with pytest.raises(Exception, match="bucket_of_document"):
        row.withColumn("bucket", (F.col("bucket") + 1) % BUCKETS).write.format("delta").mode("append").save(
            pairs.location
        )


def test_a_build_writes_in_the_order_of_buckets(built):
    check_order(built)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"duplicates": "merge"},
        {"passage_in_pairs": True},
        {"passages_per_query": 5},
        {"prefilter": "bm25", "passages_per_document": 2},
    ],
    ids=str,
)
def test_a_build_of_another_kind_writes_in_that_order_too(spark, tmp_path, student_folder, changes):
    warehouse = Warehouse(spark, str(tmp_path / "warehouse"))
    with in_small_files():
        build(warehouse, student_folder, **changes)
    check_order(warehouse)


def check_order(warehouse: Warehouse) -> None:
    """Files hold ranges of buckets that do not overlap, each in its order, so that chunks are read in place."""
    for name in ("pairs", "passages"):
        rows = warehouse.table(name).read()
        document = F.regexp_extract("passage_id", "^(.*):", 1)
        assert rows.where(F.col("bucket") != bucket_of_document(document)).isEmpty(), "merged pairs too"
        ranges = []
        for file in rows.inputFiles():
            buckets = pq.read_table(file.removeprefix("file:"), columns=["bucket"])["bucket"].to_pylist()
            assert buckets == sorted(buckets)
            ranges.append((buckets[0], buckets[-1]))
        ranges.sort()
        assert len(ranges) > 1
        assert all(before[1] < after[0] for before, after in pairwise(ranges))
    pinned = read_pairs(warehouse.spark, warehouse.table("pairs"), None)
    there = pinned.in_place()
    assert isinstance(there, InPlace)
    assert there.in_order(CHUNKS)
    assert sum(there.sizes(CHUNKS).values()) == pinned.count()


def test_each_task_gets_the_rows_of_its_number(spark):
    rows = spark.range(1000).select((F.col("id") % 7).cast("int").alias("number"))
    dealt = dealt_in_order(rows, F.col("number"), 7).select("number", F.spark_partition_id().alias("task")).collect()
    assert all(row.number == row.task for row in dealt)
    assert len(dealt) == 1000
    buckets = spark.range(5000).select(F.col("id").cast("string").alias("passage_id"))
    buckets = buckets.withColumn("bucket", F.pmod(F.xxhash64("passage_id"), F.lit(BUCKETS)).cast("int"))
    rows = in_bucket_order(buckets, 4).withColumn("task", F.spark_partition_id()).collect()
    assert [(row.task, row.bucket) for row in rows] == sorted((row.task, row.bucket) for row in rows)
    assert [row.bucket for row in rows] == sorted(row.bucket for row in rows)


@pytest.mark.parametrize("chunks", [1, 3, 7, 1000, BUCKETS])
def test_every_bucket_is_in_one_chunk(spark, chunks):
    buckets = spark.range(BUCKETS).select(F.col("id").cast("int").alias("bucket"))
    told = buckets.select("bucket", chunk_of(F.col("bucket"), chunks).alias("chunk")).collect()
    assert {row.chunk for row in told} == set(range(chunks))
    for chunk in {0, 1 % chunks, chunks // 2, chunks - 1}:
        found = {row.bucket for row in buckets.where(in_chunk(chunk, chunks)).collect()}
        assert found == {row.bucket for row in told if row.chunk == chunk}
