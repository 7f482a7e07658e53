"""`mkdm rank --rescore`: the heads of the lists by a teacher, read once, resumed, and only where they changed."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from delta_sql import update
from deltalake import DeltaTable as Reader
from query_logs import sample_log
from tiny_models import tiny_student

from jobs import run as whole_run
from jobs.engine import Ledger, Warehouse
from jobs.engine import chunked_run as chunked
from jobs.rank import RankConfig, main
from jobs.rank import run as rank
from jobs.rescoring import RESCORE_JOB, Calibration
from jobs.rescoring.flags import teacher_of
from jobs.rescoring.lists import BELOW
from jobs.run import RunConfig
from jobs.runs import RunsConfig
from jobs.runs import run as list_runs
from jobs.score import ScoreConfig
from jobs.score import run as score
from mkdm.errors import ConfigError, InputError, RejectRateError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.folder import model_version
from mkdm.scoring.scorer import Scorer

PAIRS = "query_id string, passage_id string, query string, passage string"
TOP = 4


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, tokenizers) -> str:
    """A model that thinks otherwise than the student."""
    folder = tmp_path_factory.mktemp("models") / "teacher"
    save_checkpoint(tiny_student("bert", tokenizers["bert"], seed=7), tokenizers["bert"], folder)
    return str(folder)


@pytest.fixture
def pairs(spark, warehouse, sample_pairs) -> list[dict[str, str]]:
    """The warehouse's pairs: five queries with seven passages, one with two."""
    queries = list({pair["query_id"]: pair["query"] for pair in sample_pairs}.items())[:6]
    texts = list({pair["passage_id"]: pair["passage"] for pair in sample_pairs}.items())[:32]
    chosen = [
        {"query_id": query_id, "query": query, "passage_id": passage_id, "passage": passage}
        for number, (query_id, query) in enumerate(queries)
        for passage_id, passage in texts[5 * number : 5 * number + (2 if number == 5 else 7)]
    ]
    warehouse.table("pairs").overwrite(spark.createDataFrame(chosen).select(*PAIRS.replace(" string", "").split(", ")))
    return chosen


@pytest.fixture
def scored(spark, warehouse, pairs, student_folder) -> ScoreConfig:
    """What the pairs were scored with."""
    config = ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", incremental=True)
    score(spark, config)
    return config


@pytest.fixture
def config(warehouse, teacher) -> RankConfig:
    return RankConfig(warehouse=warehouse.root, rescore=teacher, rescore_top=TOP, precision="fp32", top_k=3)


def but(config: RankConfig, **changes) -> RankConfig:
    return RankConfig(**(vars(config) | changes))


def rows_of(warehouse: Warehouse, table: str, version: int | None = None) -> pd.DataFrame:
    return Reader(warehouse.table(table).location, version=version).to_pandas()


def plain(warehouse: Warehouse, scored: ScoreConfig, config: RankConfig, rejected=(), calibration=None) -> pd.DataFrame:
    """The published lists, by pandas and the two models alone."""
    rows = warehouse.table("pairs").read().toPandas()
    texts = rows["query"].tolist(), rows["passage"].tolist()
    rows["student"] = Scorer.load(scored.model, precision="fp32").score(*texts)
    rows["teacher"] = Scorer.load(config.rescore, precision="fp32").score(*texts)
    rows = rows.sort_values(["query_id", "student", "passage_id"], ascending=[True, False, True])
    rows["head"] = rows.groupby("query_id").cumcount() < config.rescore_top
    rows["read"] = rows["head"] & ~rows["query_id"].isin(rejected)
    both = rows[rows["read"]]
    calibration = calibration or Calibration.fit(both["student"].to_numpy(), both["teacher"].to_numpy())
    mapped = calibration.at(rows["student"].to_numpy())
    rows["score"] = np.where(rows["read"], rows["teacher"], mapped)
    for _, mine in rows.groupby("query_id"):
        below = mine[~mine["head"]].index
        border = BELOW * mine.loc[mine["head"], "score"].min()
        if len(below) and mine.loc[below, "score"].max() > border:
            rows.loc[below, "score"] *= border / mine.loc[below, "score"].max()
    rows = rows.sort_values(["query_id", "score", "passage_id"], ascending=[True, False, True])
    rows["rank"] = rows.groupby("query_id").cumcount() + 1
    versions = {True: model_version(config.rescore), False: model_version(scored.model)}
    rows["model_version"] = rows["read"].map(versions)
    return rows[rows["rank"] <= config.top_k].reset_index(drop=True)


def check(warehouse: Warehouse, expected: pd.DataFrame) -> None:
    found = rows_of(warehouse, "ranked_passages").sort_values(["query_id", "rank"]).reset_index(drop=True)
    for name in ("query_id", "rank", "passage_id", "model_version"):
        assert found[name].tolist() == expected[name].tolist(), name
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-5)
    assert (found.groupby("query_id")["score"].diff().dropna() <= 0).all()


def rescoring_runs(warehouse: Warehouse):
    return Ledger(warehouse.table("runs")).states(job=RESCORE_JOB)


def test_the_life_of_rescored_lists(spark, warehouse, pairs, scored, config, capsys):
    """Shorter and longer than the head; nothing read twice; after a change of texts only what is new in a head."""
    report = rank(spark, config)
    check(warehouse, plain(warehouse, scored, config))
    first = report.rescoring.run
    assert (report.rows, report.queries, report.heads) == (5 * 3 + 2, 6, 5 * TOP + 2)
    assert (report.rescoring.totals.rows_read, report.rescoring.totals.model_loads) == (5 * TOP + 2, 1)
    assert f"teacher version   {model_version(config.rescore)}\n" in str(report)
    assert set(rows_of(warehouse, "ranked_passages")["run_id"]) == {first.run_id}
    assert first.run_id in list_runs(spark, RunsConfig(warehouse=warehouse.root))
    assert rank(spark, config).version == report.version
    told = capsys.readouterr().err
    assert f"run {first.run_id} has read these heads already: nothing to rescore" in told
    assert "is published already" in told

    long = but(config, top_k=6)
    report = rank(spark, long)
    check(warehouse, plain(warehouse, scored, long))
    assert (report.rows, report.rescoring.run.run_id) == (5 * 6 + 2, first.run_id)
    assert "read before       0\n" in str(report)
    published = rows_of(warehouse, "ranked_passages")
    by_run = published.groupby("run_id").size().to_dict()
    assert by_run == {first.run_id: 5 * TOP + 2, report.run_id: 5 * 2}
    log = warehouse.table("ranked_passages").history(1).collect()[0]["userMetadata"]
    kept = Calibration(*map(tuple, json.loads(log)["calibration"]))

    # another text for the first passage of one list, and for the last of another, which was in no head
    queries = sorted({pair["query_id"] for pair in pairs if (published["query_id"] == pair["query_id"]).sum() > 2})
    by_student = rows_of(warehouse, "scores").sort_values(["score", "passage_id"], ascending=[False, True])
    for query, place in ((queries[0], 0), (queries[1], -1)):
        passage = by_student[by_student["query_id"] == query]["passage_id"].iloc[place]
        same = f"query_id = '{query}' AND passage_id = '{passage}'"
        update(warehouse.table("pairs"), same, passage="a gasket is a seal")
    score(spark, scored)
    with pytest.raises(InputError, match=f"an incremental run has replaced scores of run {report.run_id}"):
        rank(spark, but(long, run_id=report.run_id))
    heads = rows_of(warehouse, "scores").sort_values(["query_id", "score", "passage_id"], ascending=[True, False, True])
    heads = heads[heads.groupby("query_id").cumcount() < TOP]
    known = rows_of(warehouse, "rescored")
    new = heads.merge(known, on=["query_id", "passage_id", "content_hash"], how="left", indicator=True)
    new = int((new["_merge"] == "left_only").sum())
    changed = rank(spark, long)
    assert changed.rescoring.totals.rows_read == changed.rescoring.totals.rows_written == new <= 4
    assert changed.rescoring.run.input_versions["base_run"] == first.run_id
    check(warehouse, plain(warehouse, scored, long, calibration=kept))
    feed = Reader(warehouse.table("ranked_passages").location).load_cdf(changed.version, changed.version).read_all()
    assert feed.num_rows > 0
    assert set(feed["query_id"].to_pylist()) <= set(queries[:2]), "followers see no other list"
    with pytest.raises(InputError, match=f"adds to run {first.run_id}: its scores are theirs together"):
        list_runs(spark, RunsConfig(warehouse=warehouse.root, remove=first.run_id))
    back = rank(spark, RankConfig(warehouse=warehouse.root, top_k=6))
    assert (back.rescoring, set(rows_of(warehouse, "ranked_passages")["run_id"]) <= {report.run_id, back.run_id}) == (
        None,
        True,
    )


@pytest.mark.slow
def test_a_driver_killed_between_chunks_goes_on_and_reads_nothing_twice(
    spark, warehouse, scored, config, monkeypatch, capsys
):
    config = but(config, chunks=3, top_k=6)
    commit, committed = chunked.commit_chunk, []

    def commit_and_die(*args):
        totals = commit(*args)
        committed.append(totals.rows_written)
        raise KeyboardInterrupt

    monkeypatch.setattr(chunked, "commit_chunk", commit_and_die)
    with pytest.raises(KeyboardInterrupt):
        rank(spark, config)
    monkeypatch.undo()
    assert not warehouse.table("ranked_passages").read().count()
    (state,) = rescoring_runs(warehouse)
    listed = list_runs(spark, RunsConfig(warehouse=warehouse.root))
    assert f"{state.run.run_id:<31}started" in listed
    kept = rows_of(warehouse, "rescored")
    assert len(kept) == committed[0] > 0
    warehouse.table("pairs").drop()  # the run has its own copy of their texts
    warehouse.table("pairs").overwrite(spark.createDataFrame([("q", "p", "a", "b")], PAIRS))
    capsys.readouterr()
    report = rank(spark, but(config, chunks="auto"))
    assert f"{state.run.run_id} goes on: 1 of 3 chunks" in capsys.readouterr().err
    now = rows_of(warehouse, "rescored")
    assert len(now) == report.heads == 5 * TOP + 2
    assert not now.duplicated(["query_id", "passage_id"]).any()
    assert now.merge(kept, on=list(kept.columns)).shape[0] == len(kept), "as they were"
    assert report.rows == 5 * 6 + 2


@pytest.mark.slow
def test_a_driver_killed_in_its_only_chunk_starts_it_anew(spark, warehouse, scored, config, monkeypatch):
    complete_chunk = Ledger.complete_chunk

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "complete_chunk", die)
    with pytest.raises(KeyboardInterrupt):
        rank(spark, config)
    monkeypatch.setattr(Ledger, "complete_chunk", complete_chunk)
    report = rank(spark, config)
    check(warehouse, plain(warehouse, scored, config))
    assert len(rows_of(warehouse, "rescored")) == report.heads
    assert [state.run.run_id for state in rescoring_runs(warehouse)] == [report.rescoring.run.run_id]


@pytest.mark.slow
def test_rejects_keep_the_student_s_score_and_are_told(spark, warehouse, pairs, scored, config, tmp_path, capsys):
    """By a teacher of a zoo that takes fewer tokens than one query has; a later run tries them again."""
    lengths = {pair["query_id"]: len(pair["query"].split()) for pair in pairs[:-2]}
    longest = max(lengths, key=lambda one: lengths[one])
    text = next(pair["query"] for pair in pairs if pair["query_id"] == longest) + " gasket" * 20
    update(warehouse.table("pairs"), f"query_id = '{longest}'", query=text)
    score(spark, scored)
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text(
        yaml.safe_dump({"teachers": [{"id": "t", "model": config.rescore, "max_tokens": 60, "precision": "fp32"}]})
    )
    named = but(config, rescore="t", zoo=str(zoo), precision="auto", top_k=6)
    with pytest.raises(RejectRateError, match=r"rejected 18\.2% of the heads \(4 query_too_long\), .* is published"):
        rank(spark, named)
    assert not warehouse.table("ranked_passages").read().count()
    report = rank(spark, but(named, max_reject_rate=0.5))
    assert report.rescoring.rejects == {"query_too_long": 4}
    assert "rejected          4\n  query_too_long  4" in str(report)
    rejects = rows_of(warehouse, "rejected_pairs")
    assert rejects[["query_id", "job", "error_code", "run_id"]].drop_duplicates().values.tolist() == [
        [longest, RESCORE_JOB, "query_too_long", report.rescoring.run.run_id]
    ]
    lists = rows_of(warehouse, "ranked_passages")
    mine = lists[lists["query_id"] == longest].sort_values("rank")
    assert set(mine["model_version"]) == {report.model_version}
    by_student = rows_of(warehouse, "scores").sort_values(["score", "passage_id"], ascending=[False, True])
    assert mine["passage_id"].tolist() == by_student[by_student["query_id"] == longest]["passage_id"].tolist()[:6]
    assert set(lists[lists["query_id"] != longest].query("rank <= 2")["model_version"]) == {
        report.rescoring.run.model_version
    }
    warehouse.table("pairs").append(spark.createDataFrame([("new", "p", "what is a seal", "a seal")], PAIRS), "new")
    score(spark, scored)
    again = rank(spark, but(named, max_reject_rate=0.5))
    assert (again.rescoring.totals.rows_read, again.rescoring.rejects) == (5, {"query_too_long": 4})
    assert again.rows == report.rows + 1


@pytest.mark.slow
def test_another_student_finds_what_the_teacher_has_read(spark, warehouse, pairs, scored, config):
    """All of it where the whole list is the head, whichever student it was; and no model is loaded then."""
    config = but(config, rescore_top=20, top_k=20)
    first = rank(spark, config)
    assert first.rescoring.totals.rows_read == len(pairs)
    assert set(rows_of(warehouse, "ranked_passages")["model_version"]) == {model_version(config.rescore)}
    score(spark, ScoreConfig(**(vars(scored) | {"max_length": 64})))
    second = rank(spark, config)
    assert second.run_id != first.run_id
    assert (second.rescoring.totals.rows_read, second.rescoring.totals.model_loads, second.heads) == (0, 0, len(pairs))
    assert f"read before       {len(pairs):,}\n" in str(second)
    check(warehouse, plain(warehouse, scored, config))
    shorter = rank(spark, but(config, rescore_top=3))
    assert shorter.rescoring.totals.rows_read == 0
    assert shorter.heads == 5 * 3 + 2


@pytest.mark.slow
def test_pairs_of_a_file_and_texts_that_are_gone(spark, warehouse, pairs, student_folder, config, tmp_path):
    rows = [*pairs, {**pairs[0], "passage": "another text of the same key"}]
    mine = tmp_path / "mine.parquet"
    pd.DataFrame(rows).to_parquet(mine)
    flags = {"warehouse": warehouse.root, "pairs": str(mine)}
    scores = ScoreConfig(model=student_folder, precision="fp32", **flags)
    assert score(spark, scores).rejects == {"duplicate_key": 1}
    update(warehouse.table("pairs"), "true", passage="a gasket is a seal")
    with pytest.raises(InputError, match=r"pairs has no more the texts of \d+ of the 22 pairs that the teacher"):
        rank(spark, config)
    assert rescoring_runs(warehouse) == []
    report = rank(spark, but(config, **flags))
    assert (report.rescoring.totals.rows_read, report.rescoring.rejects) == (22, {})
    pd.DataFrame(rows[:3]).to_parquet(mine)
    assert rank(spark, but(config, **flags)).version == report.version, "what it has read is enough"


@pytest.mark.slow
def test_mkdm_run_and_mkdm_rank_with_a_teacher(spark, tmp_path, student_folder, teacher, capsys, monkeypatch):
    """Over built pairs, whose texts lie beside them; the same command again reads nothing."""
    warehouse = Warehouse(spark, str(tmp_path / "warehouse"))
    sample_log().write(spark, warehouse)
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "build-pairs: {segments: all, passage-tokens: 64}\nscore: {precision: fp32}\n"
        "rank: {top-k: 6, precision: fp32, rescore-top: 9}\n"
    )
    flags = RunConfig(student_folder, warehouse.root, str(settings), rescore=teacher, rescore_top=TOP)
    *_, rescored, ranked = whole_run.run(spark, flags)
    assert rescored.run.job == RESCORE_JOB
    assert rescored.run.settings["rescore_top"] == str(TOP)
    assert ranked.rescoring.run.run_id == rescored.run.run_id
    assert ranked.rows > rescored.totals.rows_read > 0
    lists = rows_of(warehouse, "ranked_passages")
    by_teacher = lists["model_version"] == model_version(teacher)
    assert by_teacher.sum() == rescored.totals.rows_read
    assert (lists["rank"][~by_teacher] > TOP).all()
    assert (lists.sort_values(["query_id", "rank"]).groupby("query_id")["score"].diff().dropna() <= 0).all()
    *_, again, published = whole_run.run(spark, flags)
    assert (again.run.run_id, published.version) == (rescored.run.run_id, ranked.version)
    main(["--warehouse", warehouse.root, "--rescore", teacher, "--precision", "fp32", "--rescore-top", str(TOP)])
    printed = capsys.readouterr().out
    assert f"rescoring run     {rescored.run.run_id}\n" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"rescore_top": 0}, "--rescore-top is 0; it must be at least 1"),
        ({"zoo": "zoo.yaml"}, "--zoo zoo.yaml is of no use without --rescore"),
        ({"zoo": "z", "rescore": "t", "max_length": 64}, "--precision and --max-length stand in the entry of --zoo"),
    ],
)
def test_flags_that_cannot_work(flags, message):
    with pytest.raises(ConfigError, match=message):
        RankConfig(**flags)


def test_a_teacher_that_the_zoo_lacks(tmp_path):
    (tmp_path / "zoo.yaml").write_text("teachers: [{id: bge, model: DIR}]")
    with pytest.raises(ConfigError, match=r"zoo\.yaml has no teacher 't'; it has bge"):
        teacher_of(RankConfig(rescore="t", zoo=str(tmp_path / "zoo.yaml")))
