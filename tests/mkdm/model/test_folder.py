import json
import shutil

import pytest
import torch
from tiny_models import tiny_config
from transformers import AutoModel, BertForSequenceClassification

from mkdm.errors import ConfigError, ModelError
from mkdm.model.checkpoint import load_checkpoint
from mkdm.model.folder import MODEL_MANIFEST, check_max_length, model_version


@pytest.fixture
def folder(student_folder, tmp_path):
    return shutil.copytree(student_folder, tmp_path / "copy")


def test_version_is_the_content_and_not_the_place(folder, student_folder):
    assert model_version(folder) == model_version(student_folder)
    assert len(model_version(folder)) == 16


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_version_changes_with_each_kind_of_content(folder, name):
    before = model_version(folder)
    (folder / MODEL_MANIFEST).unlink()
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert model_version(folder) != before


def test_no_folder():
    with pytest.raises(ModelError, match="no model folder at nowhere"):
        model_version("nowhere")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        model_version(folder)


def test_missing_tokenizer_config_is_noticed_by_the_manifest(folder):
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer_config\.json, which was saved with it"):
        model_version(folder)


def test_changed_file_is_named(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"alpha": 0.9', '"alpha": 0.5'))
    with pytest.raises(ModelError, match=r"config\.json in .* has changed since it was saved"):
        load_checkpoint(folder)


def test_file_that_was_added_is_named(folder):
    (folder / "vocab.txt").write_text("a\n")
    with pytest.raises(ModelError, match=r"has vocab\.txt, which was not saved with it"):
        model_version(folder)


def test_pickled_weights_are_never_loaded(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights, which are never loaded"):
        model_version(folder)


def test_cut_off_weights(folder):
    (folder / MODEL_MANIFEST).unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load the model"):
        load_checkpoint(folder)


def test_bare_encoder_is_no_teacher(tokenizers, tmp_path):
    AutoModel.from_config(tiny_config("bert", tokenizers["bert"])).save_pretrained(tmp_path)
    tokenizers["bert"].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="it has no trained header"):
        load_checkpoint(tmp_path)


def test_teacher_of_three_labels_is_refused(tokenizers, tmp_path):
    config = tiny_config("bert", tokenizers["bert"])
    config.num_labels = 3
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizers["bert"].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has 3 labels"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "takes"),
    [
        ({"model_type": "mkdm", "max_length": 160}, 160),
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "unheard-of"}, None),
    ],
)
def test_max_length_that_the_config_does_not_take(config, takes, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_max_length(tmp_path, takes)
    if takes is not None:
        with pytest.raises(ConfigError, match=f"--max-length is {takes + 1}; this model takes 1 to {takes} tokens"):
            check_max_length(tmp_path, takes + 1)
