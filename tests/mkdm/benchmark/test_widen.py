import pytest
import torch
from tiny_models import tiny_student

from mkdm.benchmark.widen import random_student, widen
from mkdm.errors import ModelError
from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.torch_backend import to_tensors


@pytest.mark.parametrize("teachers", [(), ("bge", "e5")])
@pytest.mark.parametrize("factor", [2, 3])
def test_wide_student_gives_the_same_scores(tokenizers, texts, teachers, factor):
    student = tiny_student("bert", tokenizers["bert"], teachers)
    wide = widen(student, factor)
    encoder = PairEncoder(tokenizers["bert"], 128)
    pairs = encoder.encode(*texts)
    inputs = to_tensors(encoder.batch(pairs, pairs.lengths.nonzero()[0][:40]), torch.device("cpu"))
    with torch.inference_mode():
        expected, scores = student(**inputs).score, wide(**inputs).score

    assert expected.std() > 1e-3, "scores that do not differ would prove nothing"
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    shape = wide.config.encoder_config
    assert (shape.hidden_size, shape.intermediate_size) == (32 * factor, 64 * factor)
    assert (shape.num_attention_heads, shape.num_hidden_layers) == (4, 4)
    assert student.config.encoder_config.hidden_size == 32, "the narrow one stays as it was"


def test_only_bert_is_widened(tokenizers):
    with pytest.raises(ModelError, match="RobertaConfig; only BERT"):
        widen(tiny_student("roberta", tokenizers["roberta"]), 2)


def test_random_student_differs_in_layers_alone(tokenizers):
    student = tiny_student("bert", tokenizers["bert"], ("bge",))
    other = random_student(student, 7)
    assert len(other.encoder.encoder.layer) == 7
    assert other.config.encoder_config.hidden_size == 32
    assert other.config.teacher_ids == ["bge"]
    assert student.config.encoder_config.num_hidden_layers == 4
