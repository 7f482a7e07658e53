"""`mkdm evaluate` with TREC's files, BEIR folders and stored scores, and a build of a BEIR folder."""

import json

import pytest
from deltalake import DeltaTable as Reader

from jobs import evaluate
from jobs.build_pairs import BuildPairsConfig
from jobs.build_pairs import run as build
from jobs.engine import Table, Warehouse
from jobs.evaluate import EvaluateConfig, run
from jobs.funnel.inputs import read_input, text_faults, with_faults
from jobs.reports.ranked_documents import measure_documents
from jobs.reports.score_sources import Model
from jobs.score import ScoreConfig
from jobs.score import run as score
from mkdm.errors import ConfigError, InputError
from mkdm.evaluation import ranking, read_run
from mkdm.scoring.scorer import Scorer

CORPUS = {
    "d1": ("Gaskets", "A gasket is a seal between two faces."),
    "d2": ("", "Bread is baked from flour and water."),
    "d3": ("Oil", "Oil seals keep the oil of an engine in its place."),
}
QUERIES = {"q1": "What is a gasket", "q2": "how is bread baked"}


def text_of(document: str) -> str:
    title, text = CORPUS[document]
    return f"{title} {text}" if title else text


@pytest.fixture
def beir(tmp_path):
    """A BEIR folder whose qrels judge a document that the corpus does not have."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        json.dumps({"_id": name, "title": title, "text": text, "metadata": {"url": "x"}})
        for name, (title, text) in CORPUS.items()
    ]
    (folder / "corpus.jsonl").write_text("\n".join(corpus) + "\n")
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": k, "text": v}) for k, v in QUERIES.items()))
    rows = ["query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td3\t1", "q2\td2\t1", "q2\td1\t0", "q2\tgone\t1"]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n")
    return folder


def figures(folder):
    plain = json.loads((folder / "evaluation.json").read_text())
    return plain["about"], {(f["scorer"], f["metric"]): f["value"] for g in plain["groups"] for f in g["figures"]}


def test_a_model_reranks_a_run_of_a_beir_folder(spark, student_folder, beir, tmp_path, capsys):
    """Beside the run itself; what it writes is a run that trec_eval reads, with the scores of the model."""
    first = ["q1 Q0 d2 1 3 bm25", "q1 Q0 d1 2 2 bm25", "q2\tQ0\td2\t1\t1.5\tbm25", "q2 Q0 gone 2 1 bm25"]
    (tmp_path / "first.run").write_text("\n".join([*first, "other Q0 d1 1 1 bm25"]) + "\n")
    flags = ["--beir", str(beir), "--model", student_folder, "--trec-run", str(tmp_path / "first.run")]
    flags += ["--warehouse", str(tmp_path / "W"), "--output", str(tmp_path / "out"), "--precision", "fp32"]
    evaluate.main([*flags, "--metrics", "ndcg@10,mrr@1,map,recall@2"])
    printed = capsys.readouterr()
    assert "scoring 3 pairs" in printed.err
    assert "trec_run " in printed.out

    written = read_run((tmp_path / "out" / "model.trec").read_bytes().splitlines(), "model.trec")
    pairs = [("q1", "d1"), ("q1", "d2"), ("q2", "d2")]
    texts = [QUERIES[query] for query, _ in pairs], [text_of(document) for _, document in pairs]
    expected = Scorer.load(student_folder, precision="fp32").score(*texts)
    assert [written[query][document] for query, document in pairs] == pytest.approx(list(expected), abs=1e-5)
    about, found = figures(tmp_path / "out")
    assert found["trec_run", "mrr@1"] == 0.5
    assert found["trec_run", "map"] == pytest.approx((1 / 2 / 2 + 2 / 2) / 2)
    assert found["trec_run", "recall@2"] == pytest.approx((1 / 2 + 2 / 2) / 2)
    best = float(ranking(written["q1"])[0] == "d1")
    assert found["model", "mrr@1"] == (best + 1) / 2
    assert about["pairs without a text"] == "1 of 4"
    assert about["not measured of trec_run"] == "0 judged queries without a document, 1 queries without a judgment"
    rows = Reader(str(tmp_path / "W" / "evaluations")).to_pandas()
    assert {(row.scorer, row.metric): row.value for row in rows.itertuples()} == pytest.approx(found)
    assert set(rows[rows["scorer"] == "trec_run"]["model"]) == {str(tmp_path / "first.run")}


def test_beir_files_are_inputs_of_a_build(spark, beir):
    """The title stands before the text; a row that does not fit is told, as of our own files."""
    with (beir / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d4", "title": "No text"}\n{"_id": "d5", "title": "x", "text": 5}\n')
    documents = read_input("documents", Table(spark, str(beir / "corpus.jsonl")), None)
    found = with_faults(documents.rows, "documents", *text_faults("text", 1_000)).collect()
    assert {row.doc_id: row.text for row in found if row.error_code is None} == {name: text_of(name) for name in CORPUS}
    faults = {row.doc_id: row.error_code for row in found if row.error_code is not None}
    assert faults == {"d4": "null_text", "d5": "malformed_row"}
    queries = read_input("queries", Table(spark, str(beir / "queries.jsonl")), None).rows.collect()
    assert {row.query_id: row.query for row in queries} == QUERIES


def test_files_at_fault(spark, beir, tmp_path):
    """Told by file and line, or by what is there twice, before anything is scored."""
    warehouse, run_file = str(tmp_path / "W"), tmp_path / "first.run"
    run_file.write_text("q1 Q0 d1 1 1 x\n")
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq1 0 d3 one\n")
    for name, message in (("qrels", r"qrels line 2: the grade is 'one'; it must be"), ("none", r"cannot read \S+none")):
        with pytest.raises(InputError, match=message):
            run(spark, EvaluateConfig(trec_run=str(run_file), qrels=str(tmp_path / name), warehouse=warehouse))
    with (beir / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d1", "title": "", "text": "again"}\n')
    model = Model("student", "1", None)  # it is not asked
    with pytest.raises(InputError, match=r"an _id of \S+ or queries\.jsonl is there twice"):
        measure_documents(
            Warehouse(spark, warehouse), EvaluateConfig(model="m", beir=str(beir)), {"model": model}, 9, 0
        )


@pytest.mark.slow
def test_stored_scores_of_a_built_beir_folder(spark, student_folder, beir, tmp_path):
    """A build of a BEIR folder, scored: a document's score is that of its best passage."""
    top = tmp_path / "top.tsv"
    top.write_text("".join(f"{query}\t{document}\t1\n" for query in QUERIES for document in CORPUS))
    root = str(tmp_path / "W")
    inputs = {"queries": str(beir / "queries.jsonl"), "documents": str(beir / "corpus.jsonl")}
    inputs |= {"query_documents": str(top), "query_documents_columns": "query_id,doc_id,doc_rank"}
    build(spark, BuildPairsConfig(tokenizer=student_folder, warehouse=root, passage_tokens=8, **inputs))
    run_id = score(spark, ScoreConfig(model=student_folder, warehouse=root, precision="fp32")).run.run_id
    scored = Warehouse(spark, root).table("scores").read().collect()
    best: dict[str, dict[str, float]] = {}
    for row in scored:
        of = best.setdefault(row.query_id, {})
        document = row.passage_id.rpartition(":")[0]
        of[document] = max(of.get(document, 0.0), row.score)
    assert len(scored) > 6
    report = run(spark, EvaluateConfig(run_id=run_id, beir=str(beir), warehouse=root, output=str(tmp_path / "out")))
    assert report.runs["model"] == best
    assert read_run((tmp_path / "out" / "model.trec").read_bytes().splitlines(), "model.trec") == best


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"trec_run": "r"}, "--trec-run needs judgments"),
        ({"qrels": "q"}, "need a ranking"),
        ({"qrels": "q", "model": "m"}, "give --beir FOLDER"),
        ({"qrels": "q", "run_id": "r", "against": "m"}, "give --beir FOLDER"),
        ({"beir": "b", "model": "m", "run_id": "r"}, "one of the two"),
        ({"qrels": "q", "trec_run": "r", "against_run_id": "s"}, "to be held against"),
        ({"qrels": "q", "run_id": "r", "golden_labels": "g"}, "--golden-labels is of golden labels"),
        ({"qrels": "q", "run_id": "r", "metrics": "ndcg@x"}, "there is no metric 'ndcg@x'"),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig(**flags)
