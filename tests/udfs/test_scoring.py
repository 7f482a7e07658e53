import numpy as np
import pandas as pd
import pytest
from plans import physical_plan
from pyspark.sql import functions as F
from tiny_models import tiny_student

from mkdm.errors import ModelError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.folder import models_version
from mkdm.scoring.ensemble import load_scorer
from mkdm.scoring.scorer import Scorer
from udfs.scoring import BLOCK_PAIRS, MAX_MESSAGE, ScoringSettings, blocks_in, loaded_scorer, score_udf, texts

BLOCKS = "id long, queries array<string>, passages array<string>, pairs array<int>"


def settings(folder: str, **changes) -> ScoringSettings:
    return ScoringSettings(model=folder, model_version=models_version(folder), precision="fp32", **changes)


def score_frame(spark, rows, folder, partitions=1, **changes) -> pd.DataFrame:
    """Rows of (id, query, passage), each a block of its own among blocks of all."""
    one_each = [(i, [query], [passage], [0]) for i, query, passage in rows]
    blocks = spark.createDataFrame(one_each, BLOCKS).repartition(partitions, "id")
    udf = score_udf(settings(folder, **changes))
    scored = blocks.select("id", udf("queries", "passages", "pairs").alias("r"))
    arrays = ("score", "tokens", "padded_tokens", "error_code", "error_message")
    columns = [F.get(f"r.{name}", F.lit(0)).alias(name) for name in arrays]
    return scored.select("id", *columns, "r.load_id").toPandas().sort_values("id").reset_index(drop=True)


def test_scores_are_the_scorers_and_the_model_is_loaded_once(spark, student_folder, sample_pairs):
    rows = [(i, pair["query"], pair["passage"]) for i, pair in enumerate(sample_pairs)]
    frame = score_frame(spark, rows, student_folder, partitions=7)
    expected = Scorer.load(student_folder, precision="fp32").score(*zip(*[row[1:] for row in rows], strict=True))
    np.testing.assert_allclose(frame["score"], expected, rtol=0, atol=1e-5)
    assert frame["error_code"].isna().all()
    assert frame["load_id"].nunique() == 1, "seven tasks, one executor, one load"
    assert frame["load_id"][0].startswith("fp32-")
    assert (frame["tokens"] <= frame["padded_tokens"]).all()


def test_several_students_are_averaged(spark, student_folder, tokenizers, tmp_path, sample_pairs):
    save_checkpoint(tiny_student("electra", tokenizers["electra"]), tokenizers["electra"], tmp_path)
    both = f"{student_folder},{tmp_path}"
    rows = [(i, pair["query"], pair["passage"]) for i, pair in enumerate(sample_pairs[:20])]
    frame = score_frame(spark, rows, both)
    expected = load_scorer(both, precision="fp32").score(*zip(*[row[1:] for row in rows], strict=True))
    np.testing.assert_allclose(frame["score"], expected, rtol=0, atol=1e-5)
    assert frame["load_id"].nunique() == 1


def test_second_query_finds_the_model_loaded(spark, student_folder):
    rows = [(0, "what is a gasket", "a seal")]
    loads = {score_frame(spark, rows, student_folder)["load_id"][0] for _ in range(3)}
    assert len(loads) == 1


def test_failures_are_columns_and_not_failed_tasks(spark, student_folder):
    rows = [
        (0, "what is a gasket", "a seal"),
        (1, None, "a seal"),
        (2, "what is a gasket", None),
        (3, "", "a seal"),
        (4, "what is a gasket", "  \n"),
        (5, "gasket " * 200, "a seal"),
    ]
    frame = score_frame(spark, rows, student_folder)
    codes = [None, "null_query", "null_passage", "empty_query", "empty_passage", "query_too_long"]
    assert [code if isinstance(code, str) else None for code in frame["error_code"]] == codes
    assert frame["score"].isna().tolist() == [False] + [True] * 5
    assert "leave no room for the passage in 128" in frame["error_message"][5]
    assert frame["error_message"].dropna().str.len().max() <= MAX_MESSAGE


def test_non_finite_score_is_an_error(spark, tokenizers, tmp_path):
    import torch

    student = tiny_student("bert", tokenizers["bert"])
    with torch.no_grad():
        student.encoder.embeddings.word_embeddings.weight[tokenizers["bert"].convert_tokens_to_ids("x")] = float("nan")
    save_checkpoint(student, tokenizers["bert"], tmp_path)
    frame = score_frame(spark, [(0, "a", "a"), (1, "x", "a"), (2, "a", "b")], str(tmp_path))
    assert frame["error_code"].isna().tolist() == [True, False, True]
    assert frame["error_code"][1] == "non_finite_score"
    assert frame["score"].isna().tolist() == [False, True, False]


def test_filters_on_the_result_do_not_run_it_twice(spark, student_folder):
    blocks = spark.createDataFrame([(0, ["a"], ["b"], [0])], BLOCKS)
    scored = blocks.withColumn("r", score_udf(settings(student_folder))("queries", "passages", "pairs"))
    plan = physical_plan(scored.where(F.size("r.error_code") == 0).select("r.score"))
    assert plan.count("ArrowEvalPython") == 1


def test_executor_with_another_model_refuses(student_folder):
    wrong = ScoringSettings(model=student_folder, model_version="0" * 16)
    with pytest.raises(Exception, match="the driver's is 0000000000000000"):
        loaded_scorer(wrong)


def test_executor_with_other_ir_files_refuses(student_folder):
    with pytest.raises(ModelError, match=r"IR files at .* are version None, the driver's are 0000"):
        loaded_scorer(settings(student_folder, export_version="0000"))


def test_null_of_any_kind_is_none():
    assert texts(pd.Series(["a", None, pd.NA], dtype="object")) == ["a", None, None]


def test_pairs_of_blocks_come_back_in_their_order(spark, student_folder, sample_pairs):
    queries = [pair["query"] for pair in sample_pairs[:3]]
    passages = [pair["passage"] for pair in sample_pairs[:4]]
    met = [(2, 3), (0, 0), (1, 2), (0, 3), (2, 3)]
    packed = [query * BLOCK_PAIRS + passage for query, passage in met]
    rows = [(0, queries, passages, packed), (1, [], [], []), (2, [*queries, None], passages, [3 * BLOCK_PAIRS, 1])]
    blocks = spark.createDataFrame(rows, BLOCKS).coalesce(1)
    udf = score_udf(settings(student_folder))
    first, empty, odd = blocks.select("id", udf("queries", "passages", "pairs").alias("r")).orderBy("id").collect()
    scorer = Scorer.load(student_folder, precision="fp32")
    expected = scorer.score([queries[query] for query, _ in met], [passages[passage] for _, passage in met])
    np.testing.assert_allclose(first.r.score, expected, rtol=0, atol=1e-5)
    assert first.r.padded_tokens[4] == 0, "a pair that is there twice is scored once"
    assert first.r.error_code == []
    assert (empty.r.score, empty.r.tokens) == ([], [])
    assert odd.r.error_code == ["null_query", None]
    assert odd.r.score[0] is None
    assert odd.r.score[1] == pytest.approx(float(scorer.score(queries[:1], passages[1:2])[0]), abs=1e-5)


def test_blocks_do_not_follow_arrows_batches():
    def batch(*numbers: int) -> tuple[pd.Series, pd.Series, pd.Series]:
        columns = ([[str(n)] for n in numbers], [[f"{n}p"] for n in numbers], [[0] for _ in numbers])
        return tuple(pd.Series(column, dtype=object) for column in columns)

    found = list(blocks_in(iter([batch(0, 1, 2), batch(), batch(3)])))
    assert [(block.queries, block.passages, block.pairs.tolist()) for block in found] == [
        ([str(n)], [f"{n}p"], [[0, 0]]) for n in range(4)
    ]
