import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import spread_scores, tiny_config
from transformers import AutoConfig, AutoModelForSequenceClassification

from mkdm.errors import ModelError
from mkdm.model.checkpoint import load_checkpoint
from mkdm.model.fitness import check_fitness
from mkdm.model.folder import model_version
from mkdm.model.student import MkdmModel
from mkdm.scoring.scorer import Scorer
from udfs.scoring import check_model


@pytest.fixture(scope="module")
def teacher(tokenizers, tmp_path_factory):
    """A folder with a tiny BERT teacher of one label, without a manifest. To be copied, not changed."""
    folder, config = tmp_path_factory.mktemp("teacher"), tiny_config("bert", tokenizers["bert"])
    config.num_labels = 1
    torch.manual_seed(0)
    spread_scores(AutoModelForSequenceClassification.from_config(config)).save_pretrained(folder)
    tokenizers["bert"].save_pretrained(folder)
    return folder


@pytest.fixture
def folder(teacher, tmp_path):
    return shutil.copytree(teacher, tmp_path / "copy")


def edit(path, **changes):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


def rename(folder, old, new):
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace(old, new): tensor for name, tensor in weights.items()}
    save_file(
        {name: tensor for name, tensor in renamed.items() if name}, folder / "model.safetensors", {"format": "pt"}
    )


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "electra", "distilbert"])
def test_teachers_of_each_family_pass(family, tokenizers, tmp_path):
    for labels in (1, 2):
        config = tiny_config(family, tokenizers[family])
        config.num_labels = labels
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
        tokenizers[family].save_pretrained(tmp_path)
        assert check_fitness(tmp_path) == labels - 1
        assert load_checkpoint(tmp_path)[0].relevant == labels - 1


def refuse(folder, message):
    """Driver and executor say the same; the driver without loading."""
    for check in (lambda: check_model(str(folder), "torch", "fp32", None), lambda: load_checkpoint(folder)):
        with pytest.raises(ModelError, match=message) as raised:
            check()
        assert "\n" not in str(raised.value)


def test_driver_is_told_without_torch(folder):
    code = "import sys; from udfs.scoring import check_model; check_model(sys.argv[1], 'torch', 'fp32'); "
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    edit(folder / "config.json", model_type="bart")
    failed = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert "of the family bart, which is not supported" in failed.stderr


def test_weights_of_other_names_are_refused(folder):
    rename(folder, "bert.", "module.bert.")
    refuse(folder, r"lack bert\.embeddings\.word_embeddings\.weight: their names, such as .* are not a bert's")


def test_lost_layer_is_refused(folder):
    rename(folder, "layer.2.", "layers.2.")
    refuse(folder, "lack layer 2 of 4")


def test_what_only_loading_tells_is_refused(folder):
    rename(folder, "layer.2.output.dense.weight", "layer.2.output.dens.weight")
    with pytest.raises(ModelError, match=r"lack bert\.encoder\.layer\.2\.output\.dense\.weight .1 tensors.*random"):
        load_checkpoint(folder)


def test_encoder_with_weights_of_other_names_is_no_start_for_a_student(folder):
    assert MkdmModel.from_encoder(folder, 2) is not None, "an unused pooler, or none, is no fault"
    rename(folder, "bert.", "bart.")
    with pytest.raises(ModelError, match=r"lack embeddings\.LayerNorm\.bias .* would be random, and have others"):
        MkdmModel.from_encoder(folder, 2)


def test_encoder_with_weights_of_another_shape_is_no_start_for_a_student(folder):
    edit(folder / "config.json", intermediate_size=48)
    with pytest.raises(ModelError, match=r"at .*copy"):
        MkdmModel.from_encoder(folder, 2)


def test_header_of_other_rows_is_refused(folder):
    edit(folder / "config.json", id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    refuse(folder, r"classifier\.weight at .* has 1 rows, its config\.json tells of 2 labels")


def test_three_labels_are_refused(folder):
    edit(folder / "config.json", id2label={"0": "contradiction", "1": "entailment", "2": "neutral"})
    refuse(folder, "has 3 labels .contradiction, entailment, neutral., as a model of inference has")


@pytest.mark.parametrize("family", ["bart", "convbert", None])
def test_other_families_are_refused(folder, family):
    edit(folder / "config.json", model_type=family)
    refuse(folder, rf"of the family {family}, which is not supported: take one of bert, roberta")


def test_adapter_is_refused(folder):
    edit(folder / "adapter_config.json", peft_type="LORA")
    refuse(folder, r"holds an adapter .LoRA., not a whole model: .*merge_and_unload")


def test_pickles_are_refused_with_what_converts_them(folder):
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled weights, which are never loaded.*save_pretrained"):
        check_model(str(folder), "torch", "fp32", None)
    command = None
    try:
        model_version(folder)
    except ModelError as error:
        command = str(error).partition('python -c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
    assert check_model(str(folder), "torch", "fp32", None).model_version == model_version(folder)


def test_token_types_that_the_model_lacks_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    save_file(weights | {name: weights[name][:1].clone()}, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", type_vocab_size=1)
    refuse(folder, "gives token types up to 1, the model has type_vocab_size 1: .*model_input_names")
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    assert check_fitness(folder) == 0


def test_tokens_that_the_model_lacks_are_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["extra"] = len(content["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refuse(folder, "has more tokens .* than the model has embeddings")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_files_that_are_no_json_are_refused(folder, name):
    (folder / name).write_text("{")
    refuse(folder, rf"{name} cannot be read")


def cross_encoder(folder, **settings):
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu", local_files_only=True, **settings)


@pytest.mark.parametrize("length", [24, 64])
def test_scores_are_those_of_a_cross_encoder_with_its_saved_length(folder, tmp_path, texts, length):
    cross_encoder(folder, max_length=length).save_pretrained(str(tmp_path / "saved"))
    queries, passages = [text[:20] for text in texts[0][:12]], [text * 4 for text in texts[1][:12]]
    expected = cross_encoder(tmp_path / "saved").predict(list(zip(queries, passages, strict=True)))
    scorer = Scorer.load(tmp_path / "saved", "torch", "fp32")
    assert scorer.max_length == length
    np.testing.assert_allclose(scorer.score(queries, passages), expected, rtol=0, atol=1e-5)


def test_length_in_the_old_layout(folder):
    edit(folder / "sentence_bert_config.json", max_seq_length=40)
    assert load_checkpoint(folder)[0].max_length == 40
    with pytest.raises(Exception, match="this model takes 1 to 40 tokens"):
        check_model(str(folder), "torch", "fp32", 41)


@pytest.mark.parametrize("file", ["new", "section", "old"])
def test_other_activations_are_refused_by_name(folder, file):
    def write(path):
        if file == "new":
            edit(folder / "config_sentence_transformers.json", activation_fn=path)
        elif file == "section":
            edit(folder / "config.json", sentence_transformers={"activation_fn": path})
        else:
            edit(folder / "config.json", sbert_ce_default_activation_function=path)

    for fine in ("torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"):
        write(fine)
        assert check_fitness(folder) == 0
    write("torch.nn.modules.activation.Tanh")
    refuse(folder, "has the activation torch.nn.modules.activation.Tanh")


def test_prompt_that_would_be_left_out_is_refused(folder, tmp_path):
    prompts = {"qa": "Does it answer? "}
    cross_encoder(folder, prompts=prompts).save_pretrained(str(tmp_path / "unused"))
    assert check_fitness(tmp_path / "unused") == 0, "a prompt that is not the default is put before nothing"
    cross_encoder(folder, prompts=prompts, default_prompt_name="qa").save_pretrained(str(tmp_path / "saved"))
    refuse(tmp_path / "saved", r"puts the prompt 'Does it answer\? ' .qa. before its texts")


def test_bi_encoder_is_no_teacher(folder):
    kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    (folder / "modules.json").write_text(json.dumps([{"type": kind} for kind in kinds]))
    refuse(folder, "a chain of Transformer, Pooling of sentence-transformers")


@pytest.mark.parametrize("family", ["camembert", "mpnet", "ernie", "albert", "mobilebert", "rembert", "megatron-bert"])
def test_other_families_score_as_plain_transformers(family, tokenizers, tmp_path, texts):
    tokenizer = tokenizers["roberta"]
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    shape |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 130}
    shape |= {"mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32}}.get(family, {})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **shape, num_labels=1)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    queries, passages = [text[:40] for text in texts[0][:4]], [text[:100] for text in texts[1][:4]]
    inputs = tokenizer(queries, passages, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.sigmoid(model(**inputs).logits[:, 0])
    scores = Scorer.load(tmp_path, "torch", "fp32").score(queries, passages)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
