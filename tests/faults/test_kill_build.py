"""Builds whose drivers are killed -9 at random points and started again: the tables end as if nothing had happened."""

import random

import pytest
from query_logs import sample_log

from jobs.build_pairs import run
from jobs.engine import Warehouse
from jobs.engine.ledger import Ledger
from jobs.engine.pairs import read_pairs
from jobs.funnel.config import BuildPairsConfig
from mkdm.text.passages import PassageCutter
from tests.faults.driver import commits, wait_for_commits

COMMITS = 20
"""Of a first build, inputs and pairs left out: seven tables created, three steps with what they write, the ledger."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_build_killed_at_a_random_point(spark, tmp_path, tokenizers, student_folder, start_driver, seed):
    rng = random.Random(seed)
    log = sample_log()
    warehouse = Warehouse(spark, str(tmp_path / "warehouse"))
    log.write(spark, warehouse)
    flags = {"tokenizer": student_folder, "warehouse": warehouse.root, "passage_tokens": 64, "segments": "all"}
    for changes in ({}, {"d1": "Something else.", "d2": None, "d9": "A gasket is a seal."}):
        log = log.but(
            documents=changes,
            query_documents={key: None for key in log.query_documents if key[1] in ("d2",) and changes},
        )
        log.write(spark, warehouse)
        driver = start_driver({"driver_memory": "1g", **flags}, job="build-pairs")
        wait_for_commits(driver, warehouse.root, commits(warehouse.root) + rng.randint(1, COMMITS // 2))
        driver.kill(with_jvm=rng.random() < 0.5)
        report = run(spark, BuildPairsConfig(**flags))
        pairs = read_pairs(spark, warehouse.table("pairs"), None).rows.collect()
        expected = log.pairs(PassageCutter(tokenizers["bert"], 64))
        assert len(pairs) == len(expected) == report.counts["pairs"]["pairs"]
        assert {(row.query_id, row.passage_id): (row.query, row.passage) for row in pairs} == expected
        funnel = [
            (row.step, row.what)
            for row in warehouse.table("funnel").read().collect()
            if row.run_id == report.run.run_id
        ]
        assert len(funnel) == len(set(funnel)), "each count once"
        states = Ledger(warehouse.table("runs")).states(job="build-pairs")
        assert states[-1].state == "complete"
        assert len(states[-1].chunks) == 3
