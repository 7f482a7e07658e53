import math

import pytest
import torch
from tiny_models import FAMILIES, tiny_config, tiny_student
from transformers import AutoModel

from mkdm.errors import ConfigError, ModelError
from mkdm.model.checkpoint import load_checkpoint, save_checkpoint
from mkdm.model.student import MkdmConfig, MkdmModel, output_score

GOLDEN = torch.tensor([[0.0, math.log(3.0)]])  # P(1) = 3/4
SOFT = torch.tensor([[0.0, math.log(1 / 9)]])  # R = 1/2, 1/10


def test_output_is_the_mean_of_golden_and_soft_headers():
    assert output_score(GOLDEN, SOFT, alpha=0.9).item() == pytest.approx((0.75 + 0.5 + 0.1) / 3)


def test_output_without_teachers_is_the_golden_probability():
    assert output_score(GOLDEN, torch.zeros(1, 0), alpha=0.9).item() == pytest.approx(0.75)


def test_output_with_alpha_one_leaves_the_golden_header_out():
    assert output_score(GOLDEN, SOFT, alpha=1.0).item() == pytest.approx((0.5 + 0.1) / 2)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ConfigError, match="must lie in"):
        MkdmConfig(alpha=alpha, teacher_ids=["bge"])


def test_alpha_one_without_a_teacher_is_refused():
    with pytest.raises(ConfigError, match="no header is left"):
        MkdmConfig(alpha=1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_student_starts_from_the_first_layers_of_a_deeper_encoder(family, tokenizers, tmp_path):
    tokenizer = tokenizers[family]
    torch.manual_seed(1)
    deep = AutoModel.from_config(tiny_config(family, tokenizer)).eval()
    deep.save_pretrained(tmp_path)

    student = MkdmModel.from_encoder(tmp_path, num_layers=3, teacher_ids=("bge",)).eval()

    inputs = tokenizer("what is a gasket", "a seal", return_tensors="pt")
    with torch.inference_mode():
        third = deep(**inputs, output_hidden_states=True).hidden_states[3]
        ours = student.encoder(**inputs).last_hidden_state
        output = student(**inputs)
    torch.testing.assert_close(ours, third)
    assert student.config.num_layers == 3
    assert student.config.num_teachers == 1
    assert student.config.max_length == 128
    assert output.golden_logits.shape == (1, 2)
    assert output.soft_logits.shape == (1, 1)


def test_more_layers_than_the_encoder_has_are_refused(tokenizers, tmp_path):
    AutoModel.from_config(tiny_config("bert", tokenizers["bert"])).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has 4 layers; cannot take 5"):
        MkdmModel.from_encoder(tmp_path, num_layers=5)


@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load_round_trip(family, tokenizers, tmp_path):
    student = tiny_student(family, tokenizers[family], ("bge", "e5"), alpha=0.5)
    version = save_checkpoint(student, tokenizers[family], tmp_path)

    loaded = MkdmModel.from_pretrained(tmp_path).eval()
    through_auto = AutoModel.from_pretrained(tmp_path).eval()

    inputs = tokenizers[family]("what is a gasket", "a seal", return_tensors="pt")
    with torch.inference_mode():
        expected = student(**inputs).score
        torch.testing.assert_close(loaded(**inputs).score, expected, rtol=0, atol=0)
        torch.testing.assert_close(through_auto(**inputs).score, expected, rtol=0, atol=0)
    assert loaded.config.teacher_ids == ["bge", "e5"]
    assert loaded.config.alpha == 0.5
    assert load_checkpoint(tmp_path)[2] == version
    suffixes = {path.suffix for path in tmp_path.iterdir()}
    assert suffixes == {".safetensors", ".json"}
    assert (tmp_path / "tokenizer.json").exists()


def test_fp16_checkpoint_loads_in_fp32_with_nearly_the_same_scores(tokenizers, tmp_path):
    student = tiny_student("bert", tokenizers["bert"])
    save_checkpoint(student, tokenizers["bert"], tmp_path, torch.float16)
    loaded, _, _ = load_checkpoint(tmp_path)
    assert next(loaded.parameters()).dtype == torch.float32
    assert next(student.parameters()).dtype == torch.float32
    inputs = tokenizers["bert"]("what is a gasket", "a seal", return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(loaded(**inputs)[:, 0], student(**inputs).score, rtol=0, atol=0.01)
