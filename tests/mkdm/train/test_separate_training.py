"""Students with separate layers: trained by attention masks, on passages that are cut as the scorer cuts them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import separate_student, tiny_config
from training_sets import SEPARATOR, with_separators, write_training_set
from transformers import AutoModel

from mkdm.errors import ConfigError
from mkdm.evaluation import auc
from mkdm.experiments.tasks import score_set
from mkdm.model import MkdmModel, Separation
from mkdm.model.folder import tokenizer_version
from mkdm.scoring import SeparatePairEncoder
from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.scorer import Scorer
from mkdm.scoring.torch_backend import to_tensors
from mkdm.train.arrow_feed import row_groups
from mkdm.train.config import TrainConfig
from mkdm.train.loop import train
from mkdm.train.matching import TokenMatcher
from mkdm.train.micro_batches import padded_batch
from mkdm.train.processes import Processes
from mkdm.train.rows import TrainingRows
from mkdm.train.separate_rows import cut_passages, separation_of
from mkdm.train.training_set import TrainingSet
from mkdm.train.validation import Validation

WIDTH = 24


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tokenizers) -> dict:
    folder = tmp_path_factory.mktemp("separate_training")
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("bert", tokenizers["bert"])).save_pretrained(folder / "encoder")
    tokenizers["bert"].save_pretrained(folder / "encoder")
    version = tokenizer_version(tokenizers["bert"])
    write_training_set(
        folder / "set", {"train": [180, 180], "valid": [120]}, WIDTH, tokenizer=version, make=with_separators
    )
    return {
        "encoder": str(folder / "encoder"),
        "training_set": str(folder / "set"),
        "output": str(folder / "student"),
        "num_layers": 3,
        "separate_layers": 1,
        "passage_position": 8,
        "match_weight": 0.1,
        "epochs": 6,
        "dropout": 0.0,
        "learning_rate": 3e-3,
        "batch_size": 32,
        "token_budget": 300,
        "evaluate_every": 8,
        "precision": "fp32",
        "feed": "arrow",
    }


def test_trained_student_scores_as_its_validation_did(settings):
    config = TrainConfig(**settings)
    best = train(config)
    assert best["auc"] > 0.9
    student = MkdmModel.from_pretrained(settings["output"])
    assert (student.config.num_layers, student.config.separation) == (3, Separation(1, 8, SEPARATOR))
    assert json.loads(Path(settings["output"], "config.json").read_text())["separate_layers"] == 1
    assert Scorer.load(settings["output"], precision="fp32").score(["what is a gasket"], ["a seal"]).shape == (1,)
    training_set = TrainingSet.read(settings["training_set"])
    valid = replace(training_set, files=training_set.files_of("valid"))
    with Processes() as processes:
        rows = Validation.read(training_set, config, processes).rows
    found = score_set(Path(settings["output"]), valid)
    kept = found[_labelled(valid)]
    assert len(found) == 120
    assert auc(rows.golden_labels.astype(np.int64), kept) == pytest.approx(best["auc"], abs=2e-3), "weights are fp16"


def _labelled(training_set: TrainingSet) -> np.ndarray:
    groups = list(row_groups(training_set, "valid", seed=0, epoch=0, shuffle=False))
    return np.flatnonzero(TrainingRows.concat(groups).golden_labels >= 0)


def test_matching_header_stands_where_query_and_passage_first_meet(tokenizers):
    student = separate_student("bert", tokenizers["bert"], 4, 1, 64)
    matcher = TokenMatcher(student)
    entering = []
    student.encoder.encoder.layer[2].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    student(**dict(tokenizers["bert"](["how is it"], ["a seal"], return_tensors="pt")))
    assert matcher._states is entering[0], "what leaves the second layer, the first that sees both"


def test_rows_are_cut_as_the_scorer_cuts_pairs(tokenizers, texts):
    tokenizer = tokenizers["bert"]
    separation = Separation(1, 20, tokenizer.sep_token_id)
    config = separate_student("bert", tokenizer, 4, 1, 64).config
    queries, passages = [*texts[0][:30], "a " * 40], [*texts[1][:30], "a seal " * 40]
    whole = PairEncoder(tokenizer, 64)
    pairs = whole.encode(queries, passages)
    batch = whole.batch(pairs, np.arange(len(queries)))
    rows = TrainingRows(
        pairs=np.arange(len(queries)),
        input_ids=batch.input_ids.astype(np.int32),
        lengths=pairs.lengths,
        query_lengths=np.array([len(query) for query in pairs.query_ids], dtype=np.int32),
        golden_labels=np.zeros(len(queries), dtype=np.int8),
        soft_labels=np.zeros((len(queries), 0), dtype=np.float32),
        sources=np.zeros(len(queries), dtype=np.int8),
    )
    found = cut_passages(rows, config, whole.template)
    assert (found.lengths < rows.lengths).any()
    encoder = SeparatePairEncoder(tokenizer, 64, separation)
    expected = encoder.batch(encoder.encode(queries, passages), np.arange(len(queries)))
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(getattr(padded_batch(found, whole.template), name), getattr(expected, name))
    again = encoder.of_rows(rows.input_ids, rows.lengths, rows.query_lengths)
    again_batch = encoder.batch(again, np.arange(len(queries)))
    np.testing.assert_array_equal(again_batch.input_ids, expected.input_ids)
    assert to_tensors(expected, torch.device("cpu"))["input_ids"].shape[0] == len(queries)


def test_rows_of_a_student_that_reads_pairs_stay(tokenizers):
    rows = TrainingRows(*(np.zeros((1, 4)) for _ in range(7)))
    assert cut_passages(rows, MkdmModel(separate_config(tokenizers, 0)).config, None) is rows


def separate_config(tokenizers, layers: int):
    config = separate_student("bert", tokenizers["bert"], 4, 1, 64).config
    config.separate_layers = layers
    return config


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"separate_layers": 2}, "separate_layers is 2; of 3 layers 0 to 1 can be separate"),
        ({"separate_layers": -1}, "--separate-layers is -1; it must be at least 0"),
        ({"passage_position": 23}, "24 tokens leave no room for a passage that starts at position 23"),
    ],
)
def test_settings_that_cannot_work(change, told, settings, tmp_path):
    with pytest.raises(ConfigError, match=told):
        train(TrainConfig(**settings | change | {"output": str(tmp_path)}))


@pytest.mark.parametrize("separate", [0, 1])
def test_run_of_before_the_flags_goes_on_where_no_layer_is_separate(separate, settings, tmp_path):
    changes = {"output": str(tmp_path), "separate_layers": separate, "epochs": 1}
    train(TrainConfig(**settings | changes))
    record = tmp_path / "training_state" / "finished.json"
    identity = json.loads(record.read_text())["identity"]
    assert ("separate_layers" in identity, "passage_position" in identity) == (bool(separate), bool(separate))


def test_tokenizer_without_a_separator(settings):
    class Bare:
        sep_token_id = None

    with pytest.raises(ConfigError, match="needs a tokenizer with a separator"):
        separation_of(TrainConfig(**settings), Bare())
