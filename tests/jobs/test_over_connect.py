"""Every kind of job in one warehouse over a real Spark Connect server, which has no plugin of Delta Lake's."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import QUICK
from connect_server import connect_server, connect_session
from delta_sql import update
from deltalake import DeltaTable as Reader
from query_logs import sample_log

from cluster.connect import is_connect
from cluster.session import gives_whole_executors, task_slots
from jobs.build_pairs import run as build
from jobs.engine import Table, Warehouse
from jobs.engine import table as engine_table
from jobs.engine.faults import is_conflict
from jobs.engine.progress import progress
from jobs.funnel.config import BuildPairsConfig
from jobs.maintain import MaintainConfig
from jobs.maintain import run as maintain
from jobs.rank import RankConfig
from jobs.rank import run as rank
from jobs.runs import RunsConfig
from jobs.runs import run as runs
from jobs.score import ScoreConfig
from jobs.score import run as score
from mkdm.errors import InputError
from mkdm.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with connect_server(tmp_path_factory.mktemp("server"), QUICK) as url:
        yield url


@pytest.fixture(scope="module")
def connected(server):
    with connect_session(server) as session:
        yield session


def rows_of(warehouse: Warehouse, name: str) -> list[dict]:
    return Reader(warehouse.table(name).location).to_pyarrow_table().to_pylist()


def test_build_score_change_and_rank(connected, student_folder, tmp_path):
    assert is_connect(connected)
    assert task_slots(connected) == 1
    assert gives_whole_executors(connected)
    warehouse = Warehouse(connected, str(tmp_path / "warehouse"))
    sample_log(6, 6).write(connected, warehouse)
    config = BuildPairsConfig(tokenizer=student_folder, warehouse=warehouse.root, passage_tokens=64, segments="all")
    build(connected, config)
    pairs = rows_of(warehouse, "pairs")
    passages = {row["passage_id"]: row["passage"] for row in rows_of(warehouse, "passages")}
    assert len(pairs) > 50

    scoring = ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", incremental=True)
    report = score(connected, scoring)
    assert report.totals.rows_written == len(pairs)
    assert report.totals.model_loads == 1
    scorer = Scorer.load(student_folder, precision="fp32")
    expected = scorer.score([row["query"] for row in pairs], [passages[row["passage_id"]] for row in pairs])
    found = {(row["query_id"], row["passage_id"]): row["score"] for row in rows_of(warehouse, "scores")}
    assert len(found) == len(pairs)
    for row, wanted in zip(pairs, expected, strict=True):
        assert abs(found[row["query_id"], row["passage_id"]] - wanted) < 1e-5
    first = rank(connected, RankConfig(warehouse=warehouse.root, top_k=3))
    assert first.before is None
    assert first.queries == len({row["query_id"] for row in pairs})

    gone, changed = pairs[0], pairs[-1]["passage_id"]
    assert gone["passage_id"] != changed
    there = warehouse.table("pairs")
    there.delete(f"query_id = '{gone['query_id']}' AND passage_id = '{gone['passage_id']}'")
    update(warehouse.table("passages"), f"passage_id = '{changed}'", passage="A gasket is a seal.")
    again = score(connected, scoring)
    assert again.run.run_id != report.run.run_id
    assert again.totals.rows_read == sum(row["passage_id"] == changed for row in pairs)
    keys = {(row["query_id"], row["passage_id"]) for row in rows_of(warehouse, "pairs")}
    assert len(keys) == len(pairs) - 1
    assert {(row["query_id"], row["passage_id"]) for row in rows_of(warehouse, "scores")} == keys
    second = rank(connected, RankConfig(warehouse=warehouse.root, top_k=3))
    ranked = Reader(second.location)
    assert second.before == first.version == second.version - 1
    assert ranked.history(1)[0]["operation"] == "MERGE"
    assert {(row["query_id"], row["passage_id"]) for row in ranked.to_pyarrow_table().to_pylist()} <= keys
    assert rank(connected, RankConfig(warehouse=warehouse.root, top_k=3)).version == second.version, "nothing to do"

    assert again.run.run_id in runs(connected, RunsConfig(warehouse=warehouse.root))
    cared = maintain(connected, MaintainConfig(warehouse=warehouse.root, tables=["scores", "runs"]))
    assert [care.files_after for care in cared] == [1, 1]
    with pytest.raises(InputError, match="no Delta table at"):
        warehouse.table("nothing").read()


def test_progress_is_the_share_of_tasks(connected):
    def slowly(batches):
        time.sleep(0.3)
        yield from batches

    with progress(connected, "scoring", 1000) as bar:
        bar.begin(800)
        connected.range(0, 8, 1, 8).mapInArrow(slowly, "id long").collect()
        assert 0 < bar.rows() < 800
        bar.settle(800)
        assert bar.rows() == 800


def test_a_merge_that_another_writer_came_before_is_done_again(connected, tmp_path, monkeypatch):
    """A real conflict, which no class of Python's tells over Connect: the other writer comes in the midst of it."""
    begun, over, told, end = tmp_path / "begun", tmp_path / "over", [], time.time() + 60
    monkeypatch.setattr(engine_table, "is_conflict", lambda error: told.append(error) or is_conflict(error))
    table = Table(connected, str(tmp_path / "table"))
    table.overwrite(connected.range(3).coalesce(1))

    def waiting(batches):
        begun.touch()
        while not over.exists() and time.time() < end:
            time.sleep(0.05)
        yield from batches

    def other_writer() -> None:
        while not begun.exists() and time.time() < end:
            time.sleep(0.05)
        Reader(table.location).delete("id = 0")
        over.touch()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(other_writer)
        rows = connected.range(1, 2, 1, 1).mapInArrow(waiting, "id long")
        table.merge(rows, "new", "old.id = new.id", "WHEN MATCHED THEN DELETE")
        other.result()
    assert len(told) == 1
    assert [row.id for row in table.read().collect()] == [2]


def test_a_file_is_scored_by_the_command_without_a_jvm(server, student_folder, tmp_path):
    """`mkdm --remote` in a process of its own, in which py4j and Delta's package cannot be had."""
    (tmp_path / "mine.csv").write_text(
        "query_id,passage_id,query,passage\n1,a,what is a gasket,A gasket is a seal.\n2,b,what is it,\n"
    )
    code = (
        "import sys; from jobs.__main__ import main; main(sys.argv[1:]); "
        "from pyspark import SparkContext; sys.exit(SparkContext._gateway is not None)"
    )
    flags = ["--pairs", "mine.csv", "--model", student_folder, "--warehouse", "w", "--max-reject-rate", "0.6"]
    command = [sys.executable, "-c", code, "score", "--remote", server, *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Reader(str(tmp_path / "w" / "scores")).to_pyarrow_table().to_pylist()
    assert [(row["query_id"], row["passage_id"]) for row in found] == [("1", "a")]
    assert [row["error_code"] for row in rows_at(tmp_path / "w" / "rejected_pairs")] == ["null_passage"]


def rows_at(folder) -> list[dict]:
    return Reader(str(folder)).to_pyarrow_table().to_pylist()
