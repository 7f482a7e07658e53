import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F
from tiny_models import tiny_student

from mkdm.errors import ModelError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.folder import models_version
from mkdm.scoring.ensemble import load_scorer
from mkdm.scoring.scorer import Scorer
from udfs.scoring import MAX_MESSAGE, ScoringSettings, loaded_scorer, score_udf, texts, windows


def settings(folder: str, **changes) -> ScoringSettings:
    return ScoringSettings(model=folder, model_version=models_version(folder), precision="fp32", **changes)


def score_frame(spark, rows, folder, partitions=1, **changes) -> pd.DataFrame:
    pairs = spark.createDataFrame(rows, "id long, query string, passage string").repartition(partitions, "id")
    scored = pairs.select("id", score_udf(settings(folder, **changes))("query", "passage").alias("r"))
    return scored.select("id", "r.*").toPandas().sort_values("id").reset_index(drop=True)


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
    pairs = spark.createDataFrame([("a", "b")], "query string, passage string")
    scored = pairs.withColumn("r", score_udf(settings(student_folder))("query", "passage"))
    plan = (
        scored.where(F.col("r.error_code").isNull()).select("r.score")._jdf.queryExecution().executedPlan().toString()
    )
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


@pytest.mark.parametrize("sizes", [[5], [2, 3, 4], [1] * 7, [10, 1], []])
def test_windows_do_not_follow_arrows_batches(sizes):
    numbers = iter(range(sum(sizes)))
    batches = [pd.Series([str(next(numbers)) for _ in range(size)], dtype="object") for size in sizes]
    found = list(windows(((batch, batch + "p") for batch in batches), 4))
    assert [len(queries) for queries, _ in found[:-1]] == [4] * (len(found) - 1)
    assert [query for queries, _ in found for query in queries] == [str(i) for i in range(sum(sizes))]
    assert all(passages == [f"{query}p" for query in queries] for queries, passages in found)
