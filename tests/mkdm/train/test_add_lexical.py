"""`mkdm add-lexical`: a student's score moved by BM25 of its token ids, its weights as they were."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_config, tiny_student
from training_sets import with_separators, write_training_set
from transformers import AutoModelForSequenceClassification

from jobs.__main__ import main
from mkdm.errors import ConfigError, InputError, ModelError
from mkdm.model import model_version, read_lexical, save_checkpoint, tokenizer_version
from mkdm.scoring import Scorer, lexical_shifts
from mkdm.train.arrow_feed import row_groups
from mkdm.train.lexical import AddLexicalConfig, add_lexical, texts_of
from mkdm.train.training_set import TrainingSet

WIDTH = 24


@pytest.fixture(scope="module")
def place(tokenizers, tmp_path_factory) -> Path:
    """A folder with a student and a training set."""
    folder = tmp_path_factory.mktemp("add_lexical")
    tokenizer = tokenizers["bert"]
    student = tiny_student("bert", tokenizer, ("bge",), tokens=WIDTH)
    save_checkpoint(student, tokenizer, folder / "student", torch.float16)
    write_training_set(
        folder / "set", {"train": [60, 60], "valid": [30]}, WIDTH,
        tokenizer=tokenizer_version(tokenizer), make=with_separators,
    )  # fmt: skip
    return folder


def settings(place: Path, output: Path, **changes) -> AddLexicalConfig:
    given = {"model": str(place / "student"), "training_set": str(place / "set"), "output": str(output)}
    return AddLexicalConfig(**given | changes)


def test_only_the_logit_moves(place, texts, tmp_path, capsys):
    output = tmp_path / "new"
    flags = [f"--model={place / 'student'}", f"--training-set={place / 'set'}", f"--output={output}"]
    main(["add-lexical", *flags, "--lexical-weight", "0.5"])
    assert capsys.readouterr().out == f"student {model_version(output)} saved in {output}\n"
    before, after = (load_file(folder / "model.safetensors") for folder in (place / "student", output))
    assert {name for name in after if name not in before} == {"lexical.token_weights"}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    scorers = [Scorer.load(folder, "torch", "fp32") for folder in (place / "student", output)]
    own, moved = (scorer.score_window(*texts) for scorer in scorers)
    shifts = lexical_shifts(read_lexical(output), scorers[1]._encoder.encode(*texts))
    np.testing.assert_allclose(moved.logits, own.logits + shifts, rtol=0, atol=2e-4)
    assert model_version(output) != model_version(place / "student")


def test_table_tells_how_rare_tokens_are_among_the_passages(place, tmp_path):
    add_lexical(settings(place, tmp_path / "new"))
    found = read_lexical(tmp_path / "new")
    training_set = TrainingSet.read(str(place / "set"))
    passages = set()
    for rows in row_groups(training_set, "train", seed=0, epoch=0):
        for ids, length in zip(rows.input_ids.tolist(), rows.lengths.tolist(), strict=True):
            end = ids.index(found.separator_id)
            passages.add(tuple(ids[end + 1 : length - 1]))
    assert found.passage_length == pytest.approx(np.mean([len(one) for one in passages]))
    for token in {token for passage in list(passages)[:5] for token in passage}:
        frequency = sum(token in passage for passage in passages)
        weight = np.log1p((len(passages) - frequency + 0.5) / (frequency + 0.5))
        assert found.token_weights[token] == pytest.approx(weight, rel=1e-3)
    parts = [texts_of(rows, 1, found.separator_id) for rows in row_groups(training_set, "train", seed=0, epoch=0)]
    shifts = np.concatenate([lexical_shifts(found, part) for part in parts])
    assert shifts.mean() == pytest.approx(0, abs=1e-5), "centred on the pairs that were read"


def test_the_same_again_is_the_same_and_a_second_part_takes_the_place_of_the_first(place, tmp_path):
    versions = [add_lexical(settings(place, tmp_path / name)) for name in ("a", "b")]
    assert versions[0] == versions[1]
    other = settings(place, tmp_path / "c", model=str(tmp_path / "a"), lexical_weight=2.0)
    assert add_lexical(other) != versions[0]
    assert read_lexical(tmp_path / "c").weight == 2.0
    back = settings(place, tmp_path / "d", model=str(tmp_path / "c"))
    assert add_lexical(back) == versions[0]
    assert add_lexical(settings(place, tmp_path / "few", pairs=20)) != versions[0]


def test_what_cannot_be_is_refused_and_nothing_is_written(place, tokenizers, tmp_path):
    output = tmp_path / "new"
    with pytest.raises(ConfigError, match="--lexical-weight is 0; it must be a number above 0"):
        settings(place, output, lexical_weight=0)
    config = tiny_config("bert", tokenizers["bert"])
    save_checkpoint(AutoModelForSequenceClassification.from_config(config), tokenizers["bert"], tmp_path / "teacher")
    with pytest.raises(ModelError, match="is no student of ours"):
        add_lexical(settings(place, output, model=str(tmp_path / "teacher")))
    student = tiny_student("roberta", tokenizers["roberta"], tokens=WIDTH)
    save_checkpoint(student, tokenizers["roberta"], tmp_path / "other")
    with pytest.raises(InputError, match="was encoded by tokenizer"):
        add_lexical(settings(place, output, model=str(tmp_path / "other")))
    assert not output.exists()
    shutil.copytree(place / "student", output)
    with pytest.raises(ConfigError, match="is there already"):
        add_lexical(settings(place, output))
