import numpy as np
import pytest
from tiny_models import tiny_student

from mkdm.benchmark.peers import transformers
from mkdm.benchmark.plain_student import in_sorted_batches, save_plain
from mkdm.errors import ModelError
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
