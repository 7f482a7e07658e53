import json
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, separate_student, tiny_config, tiny_student
from transformers import AutoModel, MPNetConfig

from mkdm.errors import ConfigError, ModelError
from mkdm.model import (
    MkdmConfig,
    MkdmModel,
    Separation,
    check_fitness,
    check_max_length,
    model_version,
    save_checkpoint,
)
from mkdm.model.read_apart import read_apart
from mkdm.model.separation import read_separation

SETTINGS = {"passage_position": 20, "separator_id": 3, "max_length": 64}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"separate_layers": 3}, "separate_layers is 3; of 4 layers 0 to 2 can be separate: one below the last"),
        ({"separate_layers": -1}, "separate_layers is -1"),
        ({"separate_layers": 1, "separator_id": None}, "needs a separator between query and passage"),
        ({"separate_layers": 1, "passage_position": -1}, "passage_position is -1"),
        ({"separate_layers": 1, "passage_position": 63}, "64 tokens leave no room for a passage that starts at"),
    ],
)
def test_settings_that_cannot_work(settings, told, tokenizers):
    with pytest.raises(ConfigError, match=told):
        MkdmConfig(encoder_config=tiny_config("bert", tokenizers["bert"]), **SETTINGS | settings)


def test_family_whose_layers_do_more_than_attend():
    shape = MPNetConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
    with pytest.raises(ConfigError, match=r"needs an encoder of the families bert, .*, not mpnet"):
        MkdmConfig(encoder_config=shape, separate_layers=1, **SETTINGS)


def test_one_and_two_layers_have_none_to_separate(tokenizers):
    shape = tiny_config("bert", tokenizers["bert"])
    for layers in (1, 2):
        shape.num_hidden_layers = layers
        assert MkdmConfig(encoder_config=shape).separation is None
        with pytest.raises(ConfigError, match=f"of {layers} layers 0 to 0"):
            MkdmConfig(encoder_config=shape, separate_layers=1, **SETTINGS)


def test_folder_of_before_reads_no_layer_apart(tokenizers, tmp_path):
    save_checkpoint(tiny_student("bert", tokenizers["bert"]), tokenizers["bert"], tmp_path)
    config = tmp_path / "config.json"
    fields = json.loads(config.read_text())
    for name in ("separate_layers", "passage_position", "separator_id"):
        fields.pop(name, None)
    config.write_text(json.dumps(fields))
    (tmp_path / "mkdm_manifest.json").unlink()
    assert MkdmModel.from_pretrained(tmp_path).config.separate_layers == 0
    assert read_separation(tmp_path) is None
    before = model_version(tmp_path)
    config.write_text(json.dumps(fields | SETTINGS | {"separate_layers": 1, "max_length": 128}))
    assert read_separation(tmp_path) == Separation(1, 20, 3)
    assert model_version(tmp_path) != before, "scores are others"


def test_driver_refuses_what_cannot_work(tokenizers, tmp_path):
    save_checkpoint(separate_student("bert", tokenizers["bert"], 4, 1, 64), tokenizers["bert"], tmp_path)
    assert read_separation(tmp_path) == Separation(1, 20, 3)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"separate_layers": 1', '"separate_layers": 3'))
    with pytest.raises(ModelError, match=r"config\.json: separate_layers is 3; of 4 layers"):
        check_fitness(tmp_path)


def test_driver_refuses_a_length_without_room_for_a_passage(tokenizers, tmp_path):
    save_checkpoint(separate_student("bert", tokenizers["bert"], 4, 1, 64), tokenizers["bert"], tmp_path)
    check_max_length(tmp_path, 22)
    with pytest.raises(ConfigError, match="passages of this student start at position 20: give at least 22 tokens"):
        check_max_length(tmp_path, 21)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_do_not_see_each_other_before_layer_s_plus_1(family, tokenizers):
    """States of a text after s layers are the same whatever stands beside it; one layer later they are not."""
    tokenizer = tokenizers[family]
    student = separate_student(family, tokenizer, 4, 1, 64)
    stack = student.encoder.encoder if hasattr(student.encoder, "encoder") else student.encoder.transformer
    states: dict[int, list[torch.Tensor]] = {1: [], 2: []}
    for number, kept in states.items():
        stack.layer[number].register_forward_pre_hook(lambda _, inputs, kept=kept: kept.append(inputs[0]))
    queries, passages = ["what is a gasket", "what is a gasket", "how"], ["a seal", "a pipe of rubber", "a seal"]
    inputs = dict(tokenizer(queries, passages, padding=True, return_tensors="pt"))
    with torch.inference_mode():
        student(**inputs)
    start = (inputs["input_ids"] == tokenizer.sep_token_id).int().argmax(dim=1) + 1
    size = int(inputs["attention_mask"][0].sum() - start[0])

    def passage(number: int, row: int) -> torch.Tensor:
        return states[number][0][row, start[row] : start[row] + size]

    query = slice(0, int(start[0]))
    torch.testing.assert_close(states[1][0][0, query], states[1][0][1, query], rtol=0, atol=1e-6)
    torch.testing.assert_close(passage(1, 0), passage(1, 2), rtol=0, atol=1e-6)
    assert (states[2][0][0, query] - states[2][0][1, query]).abs().max() > 1e-2
    assert (passage(2, 0) - passage(2, 2)).abs().max() > 1e-2


def test_without_passage_both_ways_of_attending_agree(tokenizers):
    """Eager attention adds its mask, sdpa takes it as it is."""
    tokenizer = tokenizers["bert"]
    student = separate_student("bert", tokenizer, 4, 2, 64)
    inputs = dict(tokenizer(["what is a gasket", "how"], ["a seal " * 4, "a"], padding=True, return_tensors="pt"))
    with torch.inference_mode():
        expected = student(**inputs).score
        student.encoder.config._attn_implementation = "eager"
        torch.testing.assert_close(student(**inputs).score, expected, rtol=0, atol=1e-6)


def test_as_many_positions_as_now_make_the_first_layer_the_same_but_for_the_mask(tokenizers):
    """With passages placed where they stand and no layer apart, the masked encoder is the encoder."""
    tokenizer = tokenizers["bert"]
    student = tiny_student("bert", tokenizer)
    inputs = dict(tokenizer(["how is it"], ["a seal"], return_tensors="pt"))
    place = int((inputs["input_ids"] == 3).int().argmax()) + 1
    with torch.inference_mode():
        plain = student.encoder(**inputs).last_hidden_state
        found = read_apart(student.encoder, Separation(0, place, 3), **inputs)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_student_with_separate_layers_starts_from_any_encoder(family, tokenizers, tmp_path):
    tokenizer = tokenizers[family]
    torch.manual_seed(1)
    AutoModel.from_config(tiny_config(family, tokenizer)).save_pretrained(tmp_path / "encoder")
    separation = Separation(1, 20, tokenizer.sep_token_id)
    student = MkdmModel.from_encoder(tmp_path / "encoder", 3, ("bge",), separation=separation)
    assert student.config.separation == separation
    save_checkpoint(student, tokenizer, Path(tmp_path, "student"))
    again = MkdmModel.from_encoder(tmp_path / "student", 3, ("bge",), separation=Separation(1, 30, 5))
    assert again.config.separation == Separation(1, 30, 5)
    assert torch.equal(again.soft_headers.weight, student.soft_headers.weight)
    assert MkdmModel.from_encoder(tmp_path / "student", 3).config.separation is None
    with pytest.raises(ConfigError, match="of 2 layers 0 to 0 can be separate"):
        MkdmModel.from_encoder(tmp_path / "student", 2, separation=separation)
