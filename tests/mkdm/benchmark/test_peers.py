import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_models import tiny_student

from mkdm.benchmark.ctranslate2_peer import PRECISIONS, convert_ctranslate2, ctranslate2, ctranslate2_folder
from mkdm.benchmark.openvino_peer import CALIBRATION, score_apart
from mkdm.benchmark.peers import transformers
from mkdm.benchmark.plain_student import in_sorted_batches, plain_alpha, save_plain, scores_of
from mkdm.benchmark.setup import texts_to_calibrate
from mkdm.errors import ModelError, RunFailedError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.scoring.scorer import Scorer


@pytest.mark.parametrize(("teachers", "alpha"), [((), 0.9), (("bge", "e5"), 0.9), (("bge",), 1.0)])
def test_plain_model_gives_the_students_scores(tokenizers, texts, tmp_path, teachers, alpha):
    student, tokenizer = tiny_student("bert", tokenizers["bert"], teachers, alpha), tokenizers["bert"]
    save_checkpoint(student, tokenizer, tmp_path / "student")
    save_plain(student, tokenizer, tmp_path / "plain")
    queries, passages = texts[0][:100], texts[1][:100]
    expected = Scorer.load(tmp_path / "student", precision="fp32").score(queries, passages)

    scores = transformers(str(tmp_path / "plain"), "fp32")(queries, passages)

    assert expected.std() > 1e-3, "scores that do not differ would prove nothing"
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.fixture
def plain(tokenizers, texts, tmp_path):
    """A plain folder of a student, 60 pairs, and the scores that plain transformers gives them.

    It takes the 384 tokens that sentence-transformers calibrates with.
    """
    student, tokenizer = tiny_student("bert", tokenizers["bert"], ("bge", "e5"), tokens=384), tokenizers["bert"]
    save_plain(student, tokenizer, tmp_path / "plain")
    folder, queries, passages = str(tmp_path / "plain"), texts[0][:60], texts[1][:60]
    return folder, queries, passages, transformers(folder, "fp32")(queries, passages)


def test_ctranslate2_gives_the_scores_of_transformers(plain):
    pytest.importorskip("ctranslate2", reason="of the extra `bench`")
    folder, queries, passages, expected = plain
    convert_ctranslate2(folder, PRECISIONS)
    exact, rounded = (ctranslate2(folder, precision)(queries, passages) for precision in PRECISIONS)
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-5)
    assert 1e-5 < np.abs(rounded - expected).max() < 0.2
    sizes = [(ctranslate2_folder(folder, precision) / "model.bin").stat().st_size for precision in PRECISIONS]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.slow
def test_sentence_transformers_openvino_gives_the_scores_of_transformers(plain, tmp_path):
    """In a Python of its own, since optimum-intel wants another transformers: name it in MKDM_PEER_PYTHON."""
    python = os.environ.get("MKDM_PEER_PYTHON")
    if python is None:
        pytest.skip("no MKDM_PEER_PYTHON: the Python of an environment with sentence-transformers[openvino]")
    folder, queries, passages, expected = plain
    texts_to_calibrate(pa.table({"query": queries, "passage": passages}), tmp_path / CALIBRATION)
    pq.write_table(pa.table({"query": queries, "passage": passages}), tmp_path / "pairs.parquet")
    for precision, drift in (("fp32", 0.02), ("int8", 0.2)):  # on some CPUs OpenVINO runs a file of fp32 in bf16
        output = tmp_path / f"{precision}.npy"
        assert score_apart(python, folder, precision, str(tmp_path / "pairs.parquet"), output) > 0
        scores = scores_of(torch.from_numpy(np.load(output)), plain_alpha(folder))
        np.testing.assert_allclose(scores, expected, rtol=0, atol=drift)


def test_peer_that_fails_in_its_own_python_is_told(plain, tmp_path):
    with pytest.raises(RunFailedError, match=r"CrossEncoder with OpenVINO failed in false: no output"):
        score_apart("false", plain[0], "fp32", "pairs", tmp_path / "out.npy")


def test_only_bert_has_peers(tokenizers, tmp_path):
    with pytest.raises(ModelError, match="RobertaConfig; the peers are measured with BERT"):
        save_plain(tiny_student("roberta", tokenizers["roberta"]), tokenizers["roberta"], tmp_path)


def test_sorted_batches_restore_the_order():
    batches, sizes = [], []

    def score(queries, passages):
        lengths = [len(query) + len(passage) for query, passage in zip(queries, passages, strict=True)]
        batches.append(len(lengths))
        sizes.extend(lengths)
        return np.array(lengths, dtype=np.float32)

    queries, passages = ["q" * (7 * i % 50) for i in range(70)], ["p" * (11 * i % 90) for i in range(70)]
    scores = in_sorted_batches(score)(queries, passages)
    assert scores.tolist() == [len(query) + len(passage) for query, passage in zip(queries, passages, strict=True)]
    assert batches == [32, 32, 6]
    assert sizes == sorted(sizes, reverse=True)
