"""The ledger: rows as they were written, names that are free, and chunks that other drivers complete meanwhile."""

import time
from dataclasses import replace
from datetime import datetime

import pytest

from jobs.engine import Identity, Ledger, RunState, Totals, Warehouse
from jobs.engine.ledger import REMOVED, Details

IDENTITY = Identity("score", {"precision": "fp32"}, {"pairs": "id@0"}, "model")


@pytest.fixture
def ledger(warehouse: Warehouse) -> Ledger:
    return Ledger(warehouse.output("runs"))


@pytest.fixture
def far_east(monkeypatch):
    """The driver's clock, nine hours from UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_rows_come_back_as_they_were_written(ledger, far_east):
    before = datetime.now()  # naive, as Spark gives times
    started = ledger.start(IDENTITY, ledger.free_name(IDENTITY, None), 10, 2)
    totals = Totals(5, 4, 1, 100, 0.25, 1, 2.5)
    details = Details({16: 5}, {"fp32-1@host:7": {"rows": 5, "tokens": 100, "seconds": 1.5}})
    ledger.complete_chunk(started.run, 1, totals, details)
    read = RunState.of(ledger.rows(run_id=started.run.run_id))
    assert read == replace(started, chunks={1: totals}, totals=totals, last_seen=read.last_seen)
    assert before <= read.run.started_at <= read.last_seen <= datetime.now()
    ledger.complete_chunk(read.run, 0, totals)  # by a driver that went on with the run
    (row,) = ledger.table.read().where("chunk = 0").collect()
    assert row["started_at"] == started.run.started_at
    (row,) = ledger.table.read().where("chunk = 1").collect()
    assert row["token_histogram"] == details.token_histogram
    assert {name: load.asDict() for name, load in row["loads"].items()} == details.loads


def test_chunk_of_another_driver_is_seen(ledger):
    run = ledger.start(IDENTITY, ledger.free_name(IDENTITY, None), 10, 4).run
    other = Ledger(ledger.table)
    ledger.complete_chunk(run, 0, Totals(rows_read=1))
    assert [ledger.chunk_done(run, chunk) for chunk in range(3)] == [True, False, False]
    other.complete_chunk(run, 1, Totals(rows_read=2))
    ledger.complete_chunk(run, 2, Totals(rows_read=3))
    for one in (ledger, other):
        assert [one.chunk_done(run, chunk) for chunk in range(4)] == [True, True, True, False]


def test_second_driver_takes_the_cut_of_the_first(ledger):
    first = ledger.start(IDENTITY, ledger.free_name(IDENTITY, None), 10, 2)
    second = Ledger(ledger.table)
    assert second.start(IDENTITY, first.run.run_id, 10, 7) == first


def test_name_of_a_removed_run_is_not_taken_again(ledger):
    assert ledger.find(IDENTITY, None) is None
    first = ledger.start(IDENTITY, ledger.free_name(IDENTITY, None), 10, 1).run
    ledger.record(first, REMOVED)
    for one in (ledger, Ledger(ledger.table)):
        assert one.find(IDENTITY, None) is None
        assert one.free_name(IDENTITY, None) == f"{first.run_id}.2"
    assert Ledger(ledger.table).free_name(IDENTITY, None) == f"{first.run_id}.2"
