"""Students with a lexical part: BM25 of token ids moves their logits, in the scorer as in the model itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, lexical_part, separate_student, tiny_student
from transformers import AutoModelForSequenceClassification

from mkdm.errors import ConfigError, ModelError
from mkdm.evaluation.baselines import bm25
from mkdm.model import Lexical, LexicalModule, MkdmConfig, MkdmModel, check_fitness, read_lexical, save_checkpoint
from mkdm.model.checkpoint import load_checkpoint
from mkdm.scoring import Scorer, lexical_shifts, pair_encoder, to_tensors
from mkdm.scoring.block import block_of
from mkdm.scoring.encoding import PairEncoder
from mkdm.train.lexical import with_lexical

LENGTH = 60
CPU = torch.device("cpu")


def saved(student: MkdmModel, tokenizer, folder: Path) -> Path:
    save_checkpoint(with_lexical(student, lexical_part(tokenizer)), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def folder(tokenizers, tmp_path_factory) -> Path:
    """A saved student. To be copied, not changed."""
    student = tiny_student("bert", tokenizers["bert"], ("bge", "e5"), tokens=LENGTH)
    return saved(student, tokenizers["bert"], tmp_path_factory.mktemp("lexical"))


def model_answers(folder: Path, queries, passages) -> np.ndarray:
    """float32[n, 2], what the model itself says of padded pairs."""
    model, tokenizer, _ = load_checkpoint(folder)
    encoder = pair_encoder(tokenizer, LENGTH, separation=model.separation)
    pairs = encoder.encode(queries, passages)
    with torch.inference_mode():
        return model(**to_tensors(encoder.batch(pairs, np.arange(len(queries))), CPU)).numpy()


@pytest.mark.parametrize("teachers", [(), ("bge", "e5")])
@pytest.mark.parametrize("family", FAMILIES)
def test_scorer_adds_what_the_model_adds(family, teachers, tokenizers, texts, tmp_path):
    student = tiny_student(family, tokenizers[family], teachers, tokens=LENGTH)
    queries, passages = (
        [*texts[0][:40], "a b a b a"],
        [*(text[: 20 + 9 * place] for place, text in enumerate(texts[1][:40])), "b " * 90],
    )
    plain = tmp_path / "plain"
    save_checkpoint(student, tokenizers[family], plain)
    folder = saved(student, tokenizers[family], tmp_path / "lexical")
    found = Scorer.load(folder, "torch", "fp32", token_budget=700).score_window(queries, passages)
    expected = model_answers(folder, queries, passages)
    np.testing.assert_allclose(found.scores, expected[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.logits, expected[:, 1], rtol=0, atol=2e-4)
    moved = found.logits - Scorer.load(plain, "torch", "fp32").score_window(queries, passages).logits
    assert np.ptp(moved) > 0.5, "else nothing was tried"
    assert max(found.tokens) == LENGTH > min(found.tokens), "some cut, some not"


@pytest.mark.parametrize("family", FAMILIES)
def test_separate_layers_have_it_too(family, tokenizers, texts, tmp_path):
    folder = saved(separate_student(family, tokenizers[family], 4, 2, LENGTH), tokenizers[family], tmp_path)
    queries = [text[:30] for text in texts[0][:20]]
    found = Scorer.load(folder, "torch", "fp32").score(queries, texts[1][:20])
    np.testing.assert_allclose(found, model_answers(folder, queries, texts[1][:20])[:, 0], rtol=0, atol=1e-5)


def test_shifts_are_those_of_bm25(tokenizers):
    """Beside the project's BM25 of words, where each word is one token."""
    tokenizer = tokenizers["bert"]
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and word.islower() and len(word) > 3][:40]
    rng = np.random.default_rng(0)
    queries = [" ".join(rng.choice(words, 5)) for _ in range(50)]
    passages = [" ".join(rng.choice(words, rng.integers(3, 30))) for _ in range(50)]
    encoder = PairEncoder(tokenizer, LENGTH)
    pairs = encoder.encode(queries, passages)
    assert all(len(ids) == len(text.split()) for ids, text in zip(pairs.passage_ids, passages, strict=True))
    frequencies = np.zeros(len(tokenizer))
    for ids in pairs.passage_ids:
        frequencies[np.unique(ids)] += 1
    table = np.log1p((50 - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    mean = float(np.mean([len(ids) for ids in pairs.passage_ids]))
    lexical = Lexical(2.0, 0.5, mean, tokenizer.sep_token_id, table)
    most = np.array([table[np.unique(ids)].sum() for ids in pairs.query_ids])
    expected = 2.0 * (np.log((1 + bm25(queries, passages)) / (1 + most)) - 0.5)
    np.testing.assert_allclose(lexical_shifts(lexical, pairs), expected, rtol=0, atol=1e-5)
    found = LexicalModule.of(lexical)(**_inputs(encoder, pairs))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


def test_shift_of_a_pair_does_not_depend_on_the_others(folder, texts, monkeypatch):
    scorer, lexical = Scorer.load(folder, "torch", "fp32"), read_lexical(folder)
    block = block_of(texts[0][:12], texts[1][:15], None)
    together = lexical_shifts(lexical, scorer._encoder.encode_block(block))
    monkeypatch.setattr("mkdm.scoring.lexical_part._AT_ONCE", 7)
    np.testing.assert_array_equal(lexical_shifts(lexical, scorer._encoder.encode_block(block)), together)
    for row in range(0, 180, 13):
        query, passage = (texts[side][place] for side, place in enumerate(block.pairs[row]))
        assert lexical_shifts(lexical, scorer._encoder.encode([query], [passage]))[0] == together[row]


def _inputs(encoder: PairEncoder, pairs) -> dict[str, torch.Tensor]:
    batch = encoder.batch(pairs, np.arange(len(pairs.lengths)))
    return {name: torch.from_numpy(getattr(batch, name)) for name in ("input_ids", "attention_mask")}


def test_pairs_of_a_block_that_cannot_be_scored_stay_errors(folder, texts):
    scorer = Scorer.load(folder, "torch", "fp32")
    queries, passages = [texts[0][0], None, texts[0][0]], [texts[1][0], texts[1][1], ""]
    found = scorer.score_window(queries, passages)
    assert sorted(found.errors) == [1, 2]
    assert found.scores[0] == scorer.score(queries[:1], passages[:1])[0]
    nothing = scorer.score_window([None], ["a"])
    assert sorted(nothing.errors) == [0]


def test_more_shared_words_never_score_lower(folder):
    """With the encoder's part taken off."""
    scorer = Scorer.load(folder, "torch", "fp32")
    pairs = scorer._encoder.encode(["engine oil filter"] * 3, ["a b c d", "oil b c d", "oil filter c d"])
    none, one, two = lexical_shifts(read_lexical(folder), pairs)
    assert none < one < two


def test_folder_tells_it_without_torch(folder, tokenizers, student_folder):
    found = read_lexical(folder)
    expected = lexical_part(tokenizers["bert"])
    np.testing.assert_array_equal(found.token_weights, expected.token_weights)
    assert replace(found, token_weights=None) == replace(expected, token_weights=None)
    assert read_lexical(student_folder) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lexical_weight": -1.0}, "lexical_weight is -1.0"),
        ({"lexical_weight": float("nan")}, "lexical_weight is nan"),
        ({"lexical_weight": 1.0, "separator_id": None}, "the tokenizer has none"),
        ({"lexical_weight": 1.0, "lexical_length": 0.0}, "lexical_length above 0, here 0.0"),
        ({"lexical_weight": 1.0, "lexical_centre": float("inf")}, "finite lexical_centre, here inf"),
    ],
)
def test_config_that_cannot_work_is_refused(settings, message, tokenizers):
    shape = tiny_student("bert", tokenizers["bert"]).config.encoder_config
    with pytest.raises(ConfigError, match=message):
        MkdmConfig(encoder_config=shape, **{"separator_id": 3} | settings)


def test_folder_whose_table_is_not_there_is_refused_before_it_loads(folder, student_folder, tmp_path):
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "mkdm_manifest.json").unlink()
    shutil.copy(Path(student_folder, "model.safetensors"), broken)
    with pytest.raises(ModelError, match=r"lack lexical\.token_weights"):
        check_fitness(broken)
    config = json.loads((folder / "config.json").read_text())
    config["lexical_length"] = 0
    whole = Path(shutil.copytree(folder, tmp_path / "wrong"))
    (whole / "mkdm_manifest.json").unlink()
    (whole / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="lexical_length above 0"):
        check_fitness(whole)
    config["lexical_length"] = 20.0
    config["encoder_config"]["vocab_size"] -= 1
    (whole / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="vocab_size is"):
        read_lexical(whole)


def test_teacher_has_none(tokenizers, tmp_path):
    config = tiny_student("bert", tokenizers["bert"]).config.encoder_config
    save_checkpoint(AutoModelForSequenceClassification.from_config(config), tokenizers["bert"], tmp_path)
    assert read_lexical(tmp_path) is None
    assert load_checkpoint(tmp_path)[0].take_lexical() is None
