import json
import math
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable as Reader
from sklearn.metrics import roc_auc_score
from tiny_models import SAMPLE

from jobs import evaluate
from jobs.engine import Table
from jobs.engine.incremental import since
from jobs.engine.ledger import COMPLETE, REPLACING, Ledger, RunState, Totals
from jobs.engine.pairs import read_pinned
from jobs.evaluate import EvaluateConfig, run
from jobs.reports.golden_labels import GROUP, read_grouped
from jobs.score import ScoreConfig
from jobs.score import run as score
from mkdm.errors import ConfigError, InputError
from mkdm.scoring.scorer import Scorer

PAIRS = "query_id string, passage_id string, query string, passage string"
ODD = {"query_id": "amazon:odd", "passage_id": "p", "query": " ", "passage": "text"}


@pytest.fixture(scope="module")
def golden() -> dict[tuple[str, str], int]:
    """The sample's golden labels by key."""
    rows = pq.read_table(SAMPLE / "golden_labels.parquet").to_pylist()
    return {(row["query_id"], row["passage_id"]): row["golden_label"] for row in rows}


@pytest.fixture(scope="module")
def labelled(sample_pairs, golden) -> list[dict]:
    """The first 80 pairs of the warehouse, with their golden labels."""
    return [pair | {"golden_label": golden[pair["query_id"], pair["passage_id"]]} for pair in sample_pairs[:80]]


def file_of(folder: Path, rows: list[dict], name: str = "golden_labels.parquet") -> str:
    pd.DataFrame(rows).drop(columns=["query", "passage"], errors="ignore").to_parquet(folder / name)
    return str(folder / name)


def test_evaluation_of_a_model(spark, warehouse, student_folder, labelled, tmp_path, capsys):
    """All that is written, for a model that scores now: only the labelled pairs, of which one cannot be scored."""
    warehouse.table("pairs").append(spark.createDataFrame([ODD, labelled[0]], PAIRS), "odd and twice")
    golden = [*labelled, labelled[0], ODD | {"golden_label": 1}, ODD | {"query_id": "amazon:gone", "golden_label": 0}]
    flags = ["--model", student_folder, "--warehouse", warehouse.root, "--golden-labels", file_of(tmp_path, golden)]
    flags += ["--precision", "fp32", "--resamples", "50", "--output", str(tmp_path / "deep" / "out")]
    evaluate.main(flags)
    printed = capsys.readouterr()
    assert f"scoring 82 pairs with {student_folder}" in printed.err

    expected = Scorer.load(student_folder, precision="fp32").score(
        [pair["query"] for pair in labelled], [pair["passage"] for pair in labelled]
    )
    area = roc_auc_score([pair["golden_label"] for pair in labelled], expected)
    plain = json.loads((tmp_path / "deep" / "out" / "evaluation.json").read_text())
    everything = plain["groups"][0]
    figures = {(one["scorer"], one["metric"]): one for one in everything["figures"]}
    assert figures["model", "auc"]["value"] == pytest.approx(area)
    assert figures["bm25", "accuracy"]["value"] is None
    queries = {pair["query_id"] for pair in labelled}
    assert (everything["pairs"], everything["queries"]) == (80, len(queries))
    sources = sorted({name.partition(":")[0] for name in queries})
    assert [group["source"] for group in plain["groups"]] == ["all", *sources]
    about = plain["about"]
    assert about["pairs without a golden label"] == "220"
    assert about["golden labels without a pair"] == "1"
    assert about["no score from model"] == "1 (1 duplicate_key, 1 empty_query)"
    page = (tmp_path / "deep" / "out" / "evaluation.html").read_text()
    assert about["version of model"] in page
    value = f"{figures['model', 'accuracy']['value']:.3f}"
    assert re.search(rf"^all +80 +model +{value} \S+–\S+ +{area:.3f} ", printed.out, re.MULTILINE)
    assert "evaluation.html" in printed.out

    table = warehouse.table("evaluations").location
    rows = Reader(table).to_pandas()
    assert len(rows) == len(plain["groups"]) * 3 * 6
    assert set(rows["evaluation_id"]) == {plain["evaluation_id"]}
    mine = rows[(rows["source"] == "all") & (rows["scorer"] == "model") & (rows["metric"] == "auc")].iloc[0]
    assert mine["value"] == pytest.approx(area)
    assert mine["low"] <= area <= mine["high"]
    assert (mine["model"], mine["model_version"], mine["pairs"]) == (student_folder, about["version of model"], 80)
    assert dict(mine["input_versions"]).keys() == {"pairs", "golden_labels"}
    assert rows[rows["scorer"] == "bm25"]["model_version"].isna().all()
    assert rows["against_version"].isna().all()


@pytest.mark.slow
def test_stored_scores_against_a_model(spark, warehouse, student_folder, labelled, tmp_path):
    """The scores of a chain of runs beside the model that made them: no difference. A repeat adds no row."""
    warehouse.table("pairs").overwrite(spark.createDataFrame(labelled[:60], PAIRS))
    first = score(spark, ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32")).run.run_id
    ledger, second = Ledger(warehouse.table("runs")), "second"
    state = RunState.of(ledger.rows(run_id=first))
    added = ledger.start(since(state.identity, state), second, 0, 1).run
    ledger.record(added, REPLACING)
    with pytest.raises(InputError, match=r"run second of .* is replacing, not complete: finish it first"):
        run(spark, EvaluateConfig(run_id=second, warehouse=warehouse.root))
    ledger.record(added, COMPLETE, Totals())
    warehouse.table("pairs").append(spark.createDataFrame(labelled[60:], PAIRS), "not scored")
    config = EvaluateConfig(
        run_id=second,
        against=student_folder,
        warehouse=warehouse.root,
        golden_labels=file_of(
            tmp_path, [pair | {"source": "even" if pair["golden_label"] else ""} for pair in labelled]
        ),
        precision="fp32",
        resamples=20,
        output=str(tmp_path / "out"),
    )
    report = run(spark, config)
    group = report.evaluation.groups[0]
    assert group.pairs == 60, "at the version that the run has scored"
    assert report.about["golden labels without a pair"] == "20"
    assert [one.source for one in report.evaluation.groups] == ["all", "even", "none"]
    for metric in ("auc", "brier", "ece"):
        difference = group.figure("difference", metric)
        assert (difference.value, difference.p_value) == (pytest.approx(0, abs=1e-5), pytest.approx(1))
    assert math.isnan(report.evaluation.groups[1].figure("difference", "auc").value)
    rows = Reader(report.table).to_pandas()
    paired = rows["against_version"].notna()
    assert set(rows[paired]["scorer"]) == {"difference"}
    assert set(rows[rows["scorer"] == "model"]["model"]) == {second}
    assert rows[paired]["p_value"].notna().sum() == paired.sum() - 4, "all but those of one class alone"

    (tmp_path / "out" / "evaluation.html").unlink()
    again = run(spark, config)
    assert again.evaluation_id == report.evaluation_id
    assert len(Reader(report.table).to_pandas()) == len(rows)
    assert Path(again.page).exists()

    with pytest.raises(InputError, match=f"an incremental run has replaced scores of run {first}"):
        run(spark, EvaluateConfig(run_id=first, warehouse=warehouse.root))
    with pytest.raises(InputError, match="has no scoring run nobody"):
        run(spark, EvaluateConfig(run_id="nobody", warehouse=warehouse.root))
    nothing = file_of(tmp_path, [ODD | {"golden_label": 1}], "nothing.parquet")
    with pytest.raises(InputError, match=r"no pair of .* has a golden label in .*: none of the 1 keys"):
        run(spark, EvaluateConfig(run_id=second, warehouse=warehouse.root, golden_labels=nothing))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["q,p,1", "q,p2,2", "q,p3,"], r"2 golden labels of .* are neither 0 nor 1, such as 2 of the pair \(q, p2\)"),
        (["q,p,yes"], r"1 golden labels of .* are neither 0 nor 1, such as yes of the pair \(q, p\)"),
        (["q,p,1", "q,p,1", "q,p2,0", "q,p2,1"], r"1 pairs have golden labels in .* that disagree, such as \(q, p2\)"),
        ([], "has no row: there is no golden label to evaluate against"),
    ],
)
def test_faults_of_golden_labels(spark, tables, tmp_path, lines, message):
    (tmp_path / "mine.csv").write_text("\n".join(["query_id,passage_id,golden_label", *lines]) + "\n")
    with pytest.raises(InputError, match=message):
        grouped(spark, tables, str(tmp_path / "mine.csv"))


def grouped(spark, tables: Path, golden_labels: str, by: str | None = None):
    sides = [Table(spark, str(tables / "pairs")), Table(spark, golden_labels)]
    return read_grouped(*((side, *read_pinned(spark, side, None, "--version")) for side in sides), by)


def test_where_groups_come_from(spark, tables, tmp_path):
    rows = [{"query_id": 1, "passage_id": "p", "golden_label": 1.0, "label_source": "human"}]
    rows += [rows[0], rows[0] | {"passage_id": "p2", "golden_label": 0.0, "label_source": None}]
    path = file_of(tmp_path, rows)
    _, golden_labels, by = grouped(spark, tables, path, "label_source")
    assert (golden_labels.count, by) == (2, "label_source")
    assert [tuple(row) for row in golden_labels.rows.orderBy("passage_id").collect()] == [
        ("1", "p", 1, "human"),
        ("1", "p2", 0, "none"),
    ]
    pairs, golden_labels, by = grouped(spark, tables, path, "query")
    assert (pairs.rows.columns[-1], GROUP in golden_labels.rows.columns, by) == (GROUP, False, "query")
    assert grouped(spark, tables, path)[2] is None
    with pytest.raises(
        InputError, match=r"neither .* nor .* has the column colour of --by; they have query_id, .*query"
    ):
        grouped(spark, tables, path, "colour")
    with pytest.raises(InputError, match="lacks the columns golden_label; it has query_id, passage_id, query, passage"):
        grouped(spark, tables, str(tables / "pairs"))
    with pytest.raises(InputError, match="--version 3 is for Delta tables"):
        read_pinned(spark, Table(spark, path), 3, "--version")


def test_groups_without_a_column():
    found = pd.DataFrame({"query_id": ["a:1", "a:2:x", "b:1"]})
    assert evaluate._grouped(found, None)[0][GROUP].tolist() == ["a", "a", "b"]
    plain = evaluate._grouped(pd.DataFrame({"query_id": ["a:1", "2"]}), None)
    assert (plain[0][GROUP].tolist(), plain[1]) == (["", ""], None)
    with pytest.raises(InputError, match="a group by source is called 'all'"):
        evaluate._grouped(found.assign(**{GROUP: "all"}), "source")
    with pytest.raises(InputError, match="there are 51 groups by doc_id, at most 50"):
        evaluate._grouped(pd.DataFrame({GROUP: range(51)}), "doc_id")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give --model to score now, or --run-id"),
        ({"model": "m", "run_id": "r"}, "give --model to score now, or --run-id"),
        ({"model": "m", "against": "n", "against_run_id": "r"}, "--against and --against-run-id exclude each other"),
        ({"model": "m", "resamples": 1}, "--resamples is 1; it must be at least 2"),
        ({"model": "m", "seed": -1}, "--seed is -1"),
    ],
)
def test_flags_that_cannot_be(flags, message):
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig(**flags)


def test_output_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--output .*file/out cannot be made: Not a directory"):
        evaluate._folder(str(tmp_path / "file" / "out"))
