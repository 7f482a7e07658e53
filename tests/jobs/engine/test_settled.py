"""`--precision auto` is settled once for a run, and stays what it was for whatever goes on with that run."""

from dataclasses import replace

import pytest

from jobs import score
from jobs.engine import Identity, PairsJob, settled
from jobs.engine.settled import settled_before, settled_model
from jobs.score import ScoreConfig, run
from mkdm.columns import PAIR
from mkdm.errors import RunFailedError
from mkdm.scoring.scorer import Scorer
from udfs.precision import settle_in_a_task
from udfs.scoring import ScoringSettings, check_model

PAIRS = "query_id string, passage_id string, query string, passage string"
ASKED = {"backend": "auto", "precision": "auto", "max_length": "None"}


@pytest.fixture
def config(warehouse, student_folder) -> ScoreConfig:
    return ScoreConfig(model=student_folder, warehouse=warehouse.root)


@pytest.fixture
def probe(monkeypatch):
    """Has each probe say what comes next of a list, as timing noise may; and count what was said."""

    def say(*choices: str) -> list[str]:
        left, said = list(choices), []

        def settle(spark, settings):
            said.append(left.pop(0))
            return said[-1], "told"

        monkeypatch.setattr(settled, "settle_in_a_task", settle)
        monkeypatch.setattr(settled, "TIMED_FROM", 0)
        return said

    return say


@pytest.mark.slow
def test_every_run_that_goes_on_keeps_what_was_settled(spark, warehouse, config, probe, monkeypatch, sample_pairs):
    said = probe("torch:fp32", "torch:bf16")
    with monkeypatch.context() as cut:
        cut.setattr(score, "score_chunks", _fail)
        with pytest.raises(RunFailedError, match="cut off"):
            run(spark, config)
    first = run(spark, config)  # goes on, unasked
    assert first.run.settings == ASKED | {"runs_as": "torch:fp32"}
    version = warehouse.table("scores").latest_version()
    again = run(spark, config)
    assert (again.run.run_id, warehouse.table("scores").latest_version()) == (first.run.run_id, version)

    warehouse.table("pairs").append(spark.createDataFrame([{**sample_pairs[0], "query_id": "new"}], PAIRS), "more")
    added = run(spark, replace(config, incremental=True))
    assert (added.run.settings, added.totals.rows_read) == (first.run.settings, 1)
    assert run(spark, replace(config, incremental=True)).run.run_id == added.run.run_id
    assert said == ["torch:fp32"], "a probe by another run would have said bf16"

    expected = Scorer.load(config.model, "torch", "fp32").score(
        *[[pair[name] for pair in sample_pairs] for name in PAIR[2:]]
    )
    scores = {(row.query_id, row.passage_id): row.score for row in warehouse.table("scores").read().collect()}
    for pair, one in zip(sample_pairs, expected, strict=True):
        assert scores[pair["query_id"], pair["passage_id"]] == pytest.approx(float(one), abs=1e-5)
    loads = [load for row in warehouse.table("runs").read().collect() for load in row.loads or {}]
    assert {load.partition("-")[0] for load in loads} == {"fp32"}


def _fail(*_args, **_more):
    raise RunFailedError("cut off")


def test_ledger_says_whose_precision_a_run_takes(spark, warehouse, config, probe):
    job = PairsJob.read(spark, config, config.warehouse)
    versions = job.pairs.versions
    table_id = versions["pairs"].partition("@")[0]
    asked = Identity("score", ASKED, versions, "model")

    def start(name: str, runs_as: str | None, at: int, **changes) -> None:
        settings = ASKED | ({} if runs_as is None else {"runs_as": runs_as})
        identity = replace(asked, settings=settings, input_versions={"pairs": f"{table_id}@{at}"}, **changes)
        state = job.ledger.start(identity, name, 1, 1)
        job.ledger.record(state.run, "complete")

    def found(run_id: str | None = None, incremental: bool = False, at: int = 0) -> str | None:
        there = replace(asked, input_versions={"pairs": f"{table_id}@{at}"})
        state = settled_before(
            replace(job, pairs=replace(job.pairs, version=f"{table_id}@{at}")), there, run_id, incremental
        )
        return state and state.run.run_id

    assert found() is None
    start("other-model", "torch:bf16", 0, model_version="other")
    assert found() is None
    start("one", "torch:fp32", 0)
    assert found() == "one"
    assert found(at=3) is None, "other pairs, so the machine may be asked anew"
    assert found(at=3, incremental=True) == "one"
    start("two", "torch:bf16", 2)
    assert found(at=3, incremental=True) == "two", "of those it may add to, the one that has read most"
    assert found(at=0, incremental=True) == "one"
    assert found(run_id="one", at=3) == "one"

    model = ScoringSettings("m", "model")
    said = probe("torch:int8")
    assert settled_model(job, asked, model).runs_as == "torch:fp32"
    assert settled_model(job, asked, replace(model, precision="int8")).runs_as is None, "named by hand"
    assert said == []
    start("old", None, 0)
    assert settled_model(job, asked, model, run_id="old").runs_as is None, "a run of an engine that settled nothing"
    assert settled_model(job, replace(asked, model_version="new"), model).runs_as == "torch:int8"


def test_probe_runs_on_an_executor_with_the_models_own_files(spark, student_folder):
    model = check_model(student_folder, "torch", "auto", max_length=60)
    runs_as, told = settle_in_a_task(spark, model)
    assert runs_as in ("torch:fp32", "torch:bf16", "torch:bf16:cuda")
    assert told.startswith(f"auto is {runs_as} for this run")


def test_few_pairs_are_not_worth_a_probe(spark, warehouse, config, probe, monkeypatch):
    said = probe("torch:bf16", "openvino:int8", "openvino:int8")
    monkeypatch.setattr(settled, "TIMED_FROM", 1000)
    job = PairsJob.read(spark, config, config.warehouse)
    asked = Identity("score", ASKED, job.pairs.versions, "model")
    model = ScoringSettings("m", "model")
    assert settled_model(job, asked, model).runs_as == "torch:fp32"
    assert settled_model(job, asked, replace(model, model="m,n")).runs_as == "torch:fp32+torch:fp32"
    assert said == []
    assert settled_model(job, asked, replace(model, export_version="files")).runs_as == "torch:bf16"
    assert settled_model(job, asked, replace(model, backend="openvino")).runs_as == "openvino:int8"
    monkeypatch.setattr(settled, "TIMED_FROM", job.pairs.count())
    assert settled_model(job, asked, model).runs_as == "openvino:int8"
