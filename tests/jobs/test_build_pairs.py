"""From queries, documents and results to pairs: what a build makes, changes, keeps, and does after a crash."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable as Reader
from pyspark.sql import functions as F
from query_logs import sample_log

from jobs import build_pairs as job
from jobs.build_pairs import run
from jobs.engine import Table, Warehouse
from jobs.engine.ledger import Ledger
from jobs.engine.pairs import read_pairs
from jobs.engine.schemas import TABLES
from jobs.funnel.config import BuildPairsConfig
from jobs.run import RunConfig
from jobs.run import run as run_all
from jobs.score import ScoreConfig
from jobs.score import run as score
from mkdm.columns import PAIR, PAIR_KEY
from mkdm.errors import ConfigError, InputError, RejectRateError, RunFailedError
from mkdm.scoring.scorer import Scorer
from mkdm.text.passages import PassageCutter

LOG = sample_log()


@pytest.fixture(scope="module")
def cutter(tokenizers) -> PassageCutter:
    return PassageCutter(tokenizers["bert"], 64)


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory, student_folder) -> Warehouse:
    """A warehouse whose pairs are built of LOG. To be copied, not used."""
    warehouse = Warehouse(spark, str(tmp_path_factory.mktemp("built") / "warehouse"))
    LOG.write(spark, warehouse)
    run(spark, config_of(warehouse, student_folder))
    return warehouse


@pytest.fixture
def warehouse(spark, tmp_path, built) -> Warehouse:
    return Warehouse(spark, str(shutil.copytree(built.root, tmp_path / "warehouse")))


def config_of(warehouse: Warehouse, student_folder: str, **changes) -> BuildPairsConfig:
    return BuildPairsConfig(
        **{"tokenizer": student_folder, "warehouse": warehouse.root, "passage_tokens": 64, "segments": "all"} | changes
    )


def pairs_of(warehouse: Warehouse) -> dict[tuple[str, str], tuple[str, str]]:
    """The pairs as every job reads them."""
    rows = read_pairs(warehouse.spark, warehouse.table("pairs"), None).rows.collect()
    assert len({row[:2] for row in rows}) == len(rows)
    return {(row.query_id, row.passage_id): (row.query, row.passage) for row in rows}


def test_a_build_makes_what_the_inputs_ask_for(built, cutter):
    expected = LOG.pairs(cutter)
    assert pairs_of(built) == expected
    assert len(expected) > 100
    stored = built.table("passages").read().collect()
    assert {row.passage_id: row.passage for row in stored} == {
        f"{document}:{key}": passage for document, text in LOG.documents.items() for key, passage in cutter.cut(text)
    }
    of_one = sorted((row for row in stored if row.doc_id == "d1"), key=lambda row: row.ordinal)
    assert [row.ordinal for row in of_one] == list(range(len(of_one)))
    assert [row.passage for row in of_one] == [passage for _, passage in cutter.cut(LOG.documents["d1"])]


def test_the_tables_as_readers_see_them(built):
    for name, kind in TABLES.items():
        if not kind.built:
            continue
        reader = Reader(f"{built.root}/{name}")
        fields = {field["name"]: field for field in json.loads(reader.schema().to_json())["fields"]}
        assert list(fields) == kind.schema.names
        assert {key for key, field in fields.items() if not field["nullable"]} == {
            field.name for field in kind.schema if not field.nullable
        }
        assert reader.metadata().configuration["delta.enableChangeDataFeed"] == "true"
        assert reader.protocol().min_reader_version == 1


def check_balance(counts: dict[str, dict[str, int]]) -> None:
    """Rows in are rows out and rejects, at each step."""

    def total(step: str, *starts: str) -> int:
        return sum(rows for what, rows in counts[step].items() if what.startswith(starts))

    assert counts["queries"]["queries read"] == total("queries", "rejected", "merged", "segment") == 11
    assert counts["documents"]["documents read"] == total("documents", "rejected", "cut") == 8
    parts = ("rejected", "of queries", "of another form", "beyond", "documents chosen")
    assert counts["pairs"]["query_documents read"] == total("pairs", *parts) > 20
    assert counts["pairs"]["candidate pairs"] == total("pairs", "left out", "pairs") - total("pairs", "pairs:")


def failing_at(steps, failing: int | None, ran: list[str]):
    """The steps; they enter their names as they run, and that one fails after its work."""
    for number, (name, step) in enumerate(steps):

        def work(build, name=name, step=step, number=number):
            ran.append(name)
            counts = step(build)
            if number == failing:
                raise RunFailedError("the power went")
            return counts

        yield name, work


@pytest.mark.slow
def test_only_what_changed_is_made_cut_and_scored(spark, warehouse, student_folder, cutter, monkeypatch, capsys):
    """A document comes, one leaves, one changes; a query leaves, one changes, two become the same; steps fail."""
    config = config_of(warehouse, student_folder)
    assert "nothing to do" in str(run(spark, config)) + capsys.readouterr().err
    scoring = ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", incremental=True)
    first = score(spark, scoring)
    assert first.totals.rows_written == len(LOG.pairs(cutter))
    version = warehouse.table("pairs").latest_version()

    paragraphs = LOG.documents["d2"].split("\n\n")
    changed = LOG.but(
        documents={
            "d9": "A gasket is a seal. It is new.",
            "d0": None,
            "d2": "\n\n".join(["Now it starts so.", *paragraphs]),
        },
        queries={"q03": None, "q04": ("something else", 3), "q06": (LOG.queries["q05"][0].upper() + "  ", 1)},
        query_documents={
            ("q01", "d9"): 4,
            ("nobody", "d1"): 1,
            **{key: None for key in LOG.query_documents if key[1] == "d0" or key[0] == "q03"},
        },
    )
    changed.write(spark, warehouse)
    real, ran = job.STEPS, []
    monkeypatch.setattr(job, "STEPS", tuple(failing_at(real, 2, ran)))  # after the work, before it is recorded
    with pytest.raises(RunFailedError, match="the power went"):
        run(spark, config)
    monkeypatch.setattr(job, "STEPS", tuple(failing_at(real, None, ran)))
    report = run(spark, config)
    assert ran == ["queries", "documents", "pairs", "pairs"]
    assert "goes on: 2 of 3 steps are done" in capsys.readouterr().err
    assert not [path for path in Path(warehouse.root).iterdir() if path.name.startswith("staging")]
    funnel = warehouse.table("funnel").read().where(F.col("run_id") == report.run.run_id).collect()
    assert len({(row.step, row.what) for row in funnel}) == len(funnel)
    expected = changed.pairs(cutter)
    assert pairs_of(warehouse) == expected
    before = LOG.pairs(cutter)
    counts = report.counts
    check_balance(counts)
    assert counts["pairs"]["rejected: unknown_query"] == 1
    assert (counts["documents"]["cut now"], counts["documents"]["cut before and unchanged"]) == (2, 6)
    added, gone = expected.keys() - before.keys(), before.keys() - expected.keys()
    retyped = {key for key in expected.keys() & before.keys() if expected[key] != before[key]}
    assert retyped == {key for key in expected if key[0] == "q04" and key in before}
    feed = warehouse.table("pairs").changes(version + 1, warehouse.table("pairs").latest_version()).collect()
    by_type = {
        kind: {(row.query_id, row.passage_id) for row in feed if row["_change_type"] == kind}
        for kind in ("insert", "delete", "update_postimage")
    }
    assert by_type == {"insert": added, "delete": gone, "update_postimage": retyped}
    kept_of_changed = {key for key in expected.keys() & before.keys() if key[1].startswith("d2:")}
    assert kept_of_changed, "passages that did not change keep their ids"

    second = score(spark, scoring)
    assert second.totals.rows_read == len(added | retyped)
    scores = {(row.query_id, row.passage_id): row.score for row in warehouse.table("scores").read().collect()}
    assert scores.keys() == expected.keys()
    scorer = Scorer.load(student_folder, precision="fp32")
    keys = sorted(expected)
    fresh = scorer.score(*map(list, zip(*(expected[key] for key in keys), strict=True)))
    assert [scores[key] for key in keys] == pytest.approx(fresh.tolist(), abs=1e-5)


def test_only_the_newest_build_is_one_to_go_on_with(spark, warehouse):
    """Settings A, then B, then A again: the tables hold what B made, though a run of A is complete."""
    ledger = Ledger(warehouse.output("runs"))
    done = ledger.states(job="build-pairs")[0]
    assert job._started(ledger, done.identity).run == done.run
    other = replace(done.identity, settings={**done.run.settings, "documents_per_query": "1"})
    assert job._started(ledger, other) is None
    state = ledger.start(other, ledger.free_name(other, None), 1, 3)
    assert job._started(ledger, other).run == state.run
    assert job._started(ledger, done.identity) is None
    assert ledger.free_name(done.identity, None) == f"{done.run.run_id}.2"
    build = job.Build(spark, warehouse, None, done.run, {}, {}, ledger, None)
    with pytest.raises(RunFailedError, match=f"another build, {state.run.run_id}, has begun since"):
        build.require_newest()
    ledger.record(state.run, "removed")
    assert job._started(ledger, other) is None
    assert job._started(ledger, done.identity) is None, "what is removed has changed the tables"


@pytest.mark.slow
def test_texts_in_the_pairs(spark, tmp_path, student_folder, cutter):
    warehouse = Warehouse(spark, str(tmp_path / "warehouse"))
    LOG.write(spark, warehouse)
    run(spark, config_of(warehouse, student_folder, passage_in_pairs=True))
    stored = warehouse.table("pairs").read()
    assert set(stored.columns) == set(PAIR)
    assert {tuple(row[name] for name in PAIR_KEY): (row.query, row.passage) for row in stored.collect()} == LOG.pairs(
        cutter
    )
    with pytest.raises(ConfigError, match="was built with --passage-in-pairs true"):
        run(spark, config_of(warehouse, student_folder))


def test_run_does_all_three_and_again_only_what_is_left(
    spark, warehouse, student_folder, cutter, tmp_path, monkeypatch
):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "build-pairs: {segments: all, passage-tokens: 64}\nscore: {precision: fp32, chunks: 2}\nrank: {top-k: 3}\n"
    )
    config = RunConfig(model=student_folder, warehouse=warehouse.root, settings=str(settings))
    with monkeypatch.context() as patched:
        patched.setattr("jobs.run.run_rank", lambda *_: (_ for _ in ()).throw(RunFailedError("no disk")))
        with pytest.raises(RunFailedError, match="no disk"):
            list(run_all(spark, config))
    built, scored, ranked = run_all(spark, config)
    assert scored.totals.rows_written == len(LOG.pairs(cutter)) == built.counts["pairs"]["pairs"]
    assert len(Ledger(warehouse.table("runs")).states(job="score")) == 1, "scored once"
    assert ranked.run_id == scored.run.run_id
    best = warehouse.table("ranked_passages").read()
    assert best.groupBy("query_id").count().where("count != 3").isEmpty()
    assert best.select("query_id").distinct().count() == len({key[0] for key in LOG.pairs(cutter)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scores: {chunks: 2}", "has the section 'scores'; the sections are build-pairs, score, rank"),
        ("score: {model: x}", "sets model for score: mkdm run gives it that itself"),
        ("score: {chunks: 0}", "--chunks is 0"),
        ("build-pairs: {colour: red}", "colour"),
        ("[1, 2]", "must have sections"),
        ("score: [", "cannot read --settings"),
    ],
)
def test_wrong_settings_are_told_before_anything_runs(tmp_path, text, message):
    settings = tmp_path / "settings.yaml"
    settings.write_text(text)
    with pytest.raises(ConfigError, match=message):
        next(run_all(None, RunConfig(model="nowhere", settings=str(settings))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_share": 1.5}, "--head-share is 1.5"),
        ({"head_share": 0.7}, "are more than 1"),
        ({"documents_per_query": 0}, "--documents-per-query is 0; it must be at least 1"),
        ({"boilerplate_documents": 1}, "--boilerplate-documents is 1; it must be at least 2"),
        ({"passage_overlap": 64}, "less than --passage-tokens"),
        ({"prefilter": "bm25"}, "give --passages-per-document or --passages-per-query"),
    ],
)
def test_numbers_out_of_range(built, student_folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of(built, student_folder, **changes)


def test_rows_of_somebody_else_are_not_touched(spark, tmp_path, tables, student_folder):
    warehouse = Warehouse(spark, str(shutil.copytree(tables, tmp_path / "warehouse")))
    LOG.write(spark, warehouse)
    with pytest.raises(InputError, match="pairs holds rows that no build made"):
        run(spark, config_of(warehouse, student_folder))
    assert warehouse.table("pairs").read().count() == 300


@pytest.mark.slow
def test_too_many_rejects_leave_the_pairs_alone_and_a_moved_output_is_made_again(
    spark, warehouse, student_folder, cutter
):
    config = config_of(warehouse, student_folder, pairs=str(Path(warehouse.root).parent / "elsewhere" / "pairs"))
    moved = Table(spark, config.pairs)
    cut_short = LOG.documents["d1"].partition("\n\n")[
        0
    ]  # of which passages stay, while those that left wait for the pairs
    LOG.but(documents={"d1": cut_short}, query_documents={(f"nobody{i}", "d1"): 1 for i in range(30)}).write(
        spark, warehouse
    )
    with pytest.raises(
        RejectRateError, match=r"of the rows of .*query_documents were rejected.*30 rejected: unknown_query"
    ):
        run(spark, config)
    assert moved.read().isEmpty()
    assert pairs_of(warehouse) == LOG.pairs(cutter), "with the texts of passages that are about to leave"
    LOG.write(spark, warehouse)  # d1 is back
    report = run(spark, config)
    assert report.counts["pairs"]["pairs: added"] == len(LOG.pairs(cutter))
    rows = read_pairs(spark, moved, None).rows.collect()
    assert {(row.query_id, row.passage_id): (row.query, row.passage) for row in rows} == LOG.pairs(cutter)
    assert pairs_of(warehouse) == LOG.pairs(cutter), "those that were there stay as they were, with all of their texts"


def test_where_pairs_find_their_passages(spark, tmp_path):
    config = BuildPairsConfig(tokenizer="none", pairs="main.qa.pairs2")
    assert config.passages_at(Table(spark, "main.qa.passages")) == "main.qa.passages"
    assert config.passages_at(Table(spark, str(tmp_path / "passages"))) == f"file:{tmp_path}/passages"
    assert BuildPairsConfig(tokenizer="none").passages_at(Table(spark, "main.qa.passages")) == ""
    assert Table(spark, "main.qa.pairs").sibling("passages").location == "main.qa.passages"
    assert Table(spark, "warehouse/pairs/").sibling("passages").location == "warehouse/passages"
    assert Table(spark, "s3a://bucket/pairs").sibling("passages").location == "s3a://bucket/passages"
