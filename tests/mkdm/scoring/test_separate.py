"""Students with separate layers: a block's texts are read once, and scores are those of the masked model."""

import threading

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, separate_student
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from mkdm.errors import ConfigError, ModelError, RejectCode
from mkdm.model import MkdmConfig, MkdmModel, PairModel, Separation, save_checkpoint
from mkdm.model.checkpoint import load_checkpoint
from mkdm.scoring.backend import LoadedBackend
from mkdm.scoring.backend_choice import load_backend
from mkdm.scoring.batching import token_budget_batches
from mkdm.scoring.block import block_of
from mkdm.scoring.memory import STATE_BYTES, memory_bytes
from mkdm.scoring.scorer import Scorer
from mkdm.scoring.separate_encoder import separate_parts
from mkdm.scoring.torch_backend import TorchBackend, TorchReader, to_tensors, torch_loaded

LENGTH = 60


@pytest.fixture(scope="module")
def folder(tokenizers, tmp_path_factory) -> str:
    """A saved student of 4 layers, of which one is separate."""
    folder = tmp_path_factory.mktemp("separate")
    save_checkpoint(separate_student("bert", tokenizers["bert"], 4, 1, LENGTH), tokenizers["bert"], folder)
    return str(folder)


def scorer_of(student: MkdmModel, tokenizer) -> Scorer:
    loaded = torch_loaded(PairModel(student, student.config.max_length).eval(), tokenizer, "v", "fp32", None)
    assert isinstance(loaded.backend, TorchReader), "else each pair would read its texts anew"
    return Scorer(loaded, token_budget=700)


def masked_scores(student: MkdmModel, scorer: Scorer, block) -> tuple[np.ndarray, np.ndarray]:
    """What the model gives by attention masks, pair by pair, for the rows that can be scored; and those rows."""
    pairs = scorer._encoder.encode_block(block)
    rows = np.flatnonzero(pairs.lengths > 0)
    scores = np.zeros(len(rows), dtype=np.float32)
    for batch in token_budget_batches(pairs.lengths[rows], 20_000):
        with torch.inference_mode():
            output = student(**to_tensors(scorer._encoder.batch(pairs, rows[batch]), torch.device("cpu")))
        scores[batch] = output.score.numpy()
    return scores, rows


@pytest.mark.parametrize(("layers", "separate"), [(3, 1), (4, 1), (4, 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_block_scores_are_those_of_the_masked_model(family, layers, separate, tokenizers, texts):
    student = separate_student(family, tokenizers[family], layers, separate, LENGTH)
    scorer = scorer_of(student, tokenizers[family])
    queries = [*texts[0][:40:4], texts[0][0], "a", "", None, "long " * 30, "a " * 200]
    passages = [*texts[1][:40:5], texts[1][0], "a", "", None, "[SEP] a </s>"]
    drawn = np.random.default_rng(0).permutation(len(queries) * len(passages))[:150]
    block = block_of(queries, passages, np.stack((drawn // len(passages), drawn % len(passages)), axis=1))
    result = scorer.score_block(queries, passages, block.pairs)
    expected, rows = masked_scores(student, scorer, block)
    assert expected.std() > 1e-3, "scores that do not differ would prove nothing"
    assert (result.tokens == LENGTH).any(), "some are cut"
    np.testing.assert_allclose(result.scores[rows], expected, rtol=0, atol=1e-5)
    assert set(result.errors) == set(range(len(block))) - set(rows.tolist())
    assert {error.code for error in result.errors.values()} == {
        RejectCode.NULL_QUERY,
        RejectCode.EMPTY_QUERY,
        RejectCode.QUERY_TOO_LONG,
        RejectCode.NULL_PASSAGE,
        RejectCode.EMPTY_PASSAGE,
    }


def test_pairs_are_scored_as_their_block_is(folder, texts):
    scorer = Scorer.load(folder, "torch", "fp32")
    queries, passages = texts[0][:12], texts[1][:12]
    block = scorer.score_block(queries, passages).scores.reshape(12, 12)
    alone = scorer.score(queries, passages)
    np.testing.assert_allclose(alone, block.diagonal(), rtol=0, atol=1e-5)
    assert block.std() > 1e-3


def test_scores_differ_from_those_of_a_student_that_reads_pairs(folder, texts):
    student = load_checkpoint(folder)[0].model
    separate = Scorer.load(folder, "torch", "fp32").score(*texts)
    student.config.separate_layers = 0
    whole = PairModel(student, LENGTH)
    plain = Scorer(torch_loaded(whole, load_checkpoint(folder)[1], "v", "fp32")).score(*texts)
    assert np.abs(separate - plain).max() > 1e-3


class Counting(TorchReader):
    """Counts the texts that it reads and the pairs that it scores."""

    def __init__(self, parts, precision="fp32", streams=None):
        super().__init__(parts, precision, streams)
        self.read_texts, self.scored, self.held, self.lock = [], 0, [], threading.Lock()

    def new_states(self, tokens):
        self.held.append(tokens)
        return super().new_states(tokens)

    def read(self, batch, states, rows):
        with self.lock:
            for ids, there in zip(batch.input_ids, batch.attention_mask.astype(bool), strict=True):
                self.read_texts.append(tuple(ids[there].tolist()))
        super().read(batch, states, rows)

    def score_pairs(self, states, batch):
        with self.lock:
            self.scored += len(batch.index)
        return super().score_pairs(states, batch)


def counting_scorer(folder, **attributes) -> Scorer:
    model, tokenizer, version = load_checkpoint(folder)
    backend = Counting(separate_parts(model))
    for name, value in attributes.items():
        setattr(backend, name, value)
    return Scorer(
        LoadedBackend(backend, tokenizer, model.max_length, version, separation=model.separation), token_budget=500
    )


def test_each_distinct_text_is_read_once(folder, texts):
    scorer = counting_scorer(folder)
    queries, passages = ["how", *texts[0][:9], "how"], [*texts[1][:10], texts[1][0]]
    scorer.score_block(queries, passages)
    backend = scorer.backend
    assert len(backend.read_texts) == len(set(backend.read_texts)) == len({*queries}) + len({*passages})
    assert backend.scored == len({*queries}) * len({*passages})


def test_query_longer_than_the_place_of_passages_leaves_less_of_them(folder, texts):
    scorer = counting_scorer(folder)
    long_query, passage = "a " * 30, "seal " * 100
    result = scorer.score_block(["a", "a a", long_query], [passage])
    assert result.errors == {}
    separation = scorer._encoder.separation
    assert result.tokens.tolist() == [LENGTH - separation.passage_position + n for n in (3, 4)] + [LENGTH]
    assert len(scorer.backend.read_texts) == 3 + 2, (
        "the passage twice: once for both short queries, once cut for the long"
    )


@pytest.mark.parametrize("streams", [1, 3])
def test_states_are_bounded(folder, texts, streams):
    expected = Scorer.load(folder, "torch", "fp32").score_block(texts[0][:20], texts[1][:20]).scores
    scorer = counting_scorer(folder, state_tokens=300, streams=streams)
    found = scorer.score_block(texts[0][:20], texts[1][:20]).scores
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(scorer.backend.held) > 3
    assert max(scorer.backend.held) <= 300


def test_memory_of_states_is_counted(folder, student_folder):
    weights = [load_checkpoint(one)[0] for one in (folder, student_folder)]
    own, other = (sum(4 * one.numel() for one in model.parameters()) for model in weights)
    assert abs(memory_bytes(folder) - memory_bytes(student_folder) - (own - other) - 2 * STATE_BYTES) < 1 << 20


def test_text_that_the_model_raises_for_is_an_error_of_its_pairs(folder, texts, monkeypatch):
    scorer = counting_scorer(folder)
    queries, passages = texts[0][:5], texts[1][:6]
    expected = scorer.score_block(queries, passages).scores
    bad = tuple(scorer._encoder._rust.encode(passages[2], add_special_tokens=False).ids[:5])
    whole = TorchReader.read

    def read(self, batch, states, rows):
        if any(tuple(ids[:5].tolist()) == bad for ids in batch.input_ids):
            raise RuntimeError("shapes do not fit")
        whole(self, batch, states, rows)

    monkeypatch.setattr(TorchReader, "read", read)
    result = scorer.score_block(queries, passages)
    assert {row: error.code for row, error in result.errors.items()} == dict.fromkeys(
        range(2, 30, 6), RejectCode.MODEL_ERROR
    )
    assert result.errors[2].message == "RuntimeError: shapes do not fit"
    good = np.arange(30) % 6 != 2
    np.testing.assert_allclose(result.scores[good], expected[good], rtol=0, atol=1e-5)


def test_text_of_no_number_spoils_its_own_pairs_alone(tokenizers):
    tokenizer = tokenizers["bert"]
    student = separate_student("bert", tokenizer, 4, 1, LENGTH)
    with torch.no_grad():
        student.encoder.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("x")] = float("nan")
    result = scorer_of(student, tokenizer).score_block(["a", "a b"], ["a", "x"])
    assert {row: error.code for row, error in result.errors.items()} == {
        1: RejectCode.NON_FINITE_SCORE,
        3: RejectCode.NON_FINITE_SCORE,
    }


def test_batch_that_does_not_fit_halves_the_budget(folder, texts, monkeypatch):
    scorer = counting_scorer(folder)
    expected = scorer.score_block(texts[0][:6], texts[1][:6]).scores
    whole = TorchReader.read

    def read(self, batch, states, rows):
        if batch.input_ids.size > 200:
            raise torch.OutOfMemoryError("no room")
        whole(self, batch, states, rows)

    monkeypatch.setattr(TorchReader, "read", read)
    np.testing.assert_allclose(scorer.score_block(texts[0][:6], texts[1][:6]).scores, expected, rtol=0, atol=1e-5)
    assert scorer.token_budget <= 250


def test_parts_that_do_not_equal_the_masked_model_are_not_used(folder, monkeypatch):
    monkeypatch.setattr("mkdm.scoring.torch_backend.separate_parts", lambda model: None)
    loaded = load_backend(folder, "torch", "fp32")
    assert type(loaded.backend) is TorchBackend
    monkeypatch.undo()
    queries, passages = ["what is a gasket", "how"], ["a seal", "a seal " * 50]
    expected = Scorer.load(folder, "torch", "fp32").score_block(queries, passages).scores
    np.testing.assert_allclose(Scorer(loaded).score_block(queries, passages).scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("layers", "separate"), [(3, 1), (4, 2), (4, 1), (5, 1)])
def test_parts_cost_what_the_docstring_says(layers, separate):
    """In H² a token: 9 + 12·(s − 1) + 3 of a text, 9 + 12·(k − s − 2) of a pair."""
    hidden, length = 256, 512
    shape = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=4 * hidden, vocab_size=99
    )
    config = MkdmConfig(encoder_config=shape, separate_layers=separate, passage_position=24, separator_id=3)
    parts = separate_parts(PairModel(MkdmModel(config).eval(), 512))
    ids = torch.randint(5, 99, (1, length))
    ones = torch.ones_like(ids)
    place = torch.arange(length)[None]
    costs = []
    for module, inputs in (
        (parts.text, (ids, ones, place)),
        (parts.pair, (torch.randn(length, 4 * hidden), place, ones)),
    ):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            module(*inputs)
        flops = counter.get_flop_counts()["Global"]
        attention = sum(flops for op, flops in flops.items() if "attention" in str(op) or "bmm" in str(op))
        costs.append((sum(flops.values()) - attention) / 2 / (length * hidden**2))
    assert costs == pytest.approx([12 * separate, 9 + 12 * (layers - separate - 2)], rel=0.01, abs=0.1)


@pytest.mark.parametrize("max_length", [21, 22])
def test_length_that_leaves_no_passage(folder, max_length):
    place = 20
    if max_length < place + 2:
        with pytest.raises(ConfigError, match="21 tokens leave no room for a passage that starts at position 20"):
            Scorer.load(folder, "torch", "fp32", max_length=max_length)
    else:
        result = Scorer.load(folder, "torch", "fp32", max_length=max_length).score_block(["a"], ["a seal of rubber"])
        assert result.tokens.tolist() == [3 + 2]


def test_tokenizer_that_ends_the_query_otherwise(tokenizers, tmp_path):
    student = separate_student("bert", tokenizers["bert"], 4, 1, LENGTH)
    student.config.separator_id = 7
    save_checkpoint(student, tokenizers["bert"], tmp_path)
    with pytest.raises(ModelError, match="the tokenizer does not end the query with token 7"):
        Scorer.load(tmp_path, "torch", "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="bf16 is of a CPU here")
def test_bf16_stays_near_fp32(folder, texts):
    fp32 = Scorer.load(folder, "torch", "fp32").score(*texts)
    bf16 = Scorer.load(folder, "torch", "bf16").score(*texts)
    assert 0 < np.abs(fp32 - bf16).max() < 0.05


@pytest.mark.slow
def test_compiled_parts_give_the_same_scores(folder, texts):
    compiled = Scorer.load(folder, "torch-compile", "fp32", token_budget=1000).score_block(texts[0][:20], texts[1][:20])
    expected = Scorer.load(folder, "torch", "fp32").score_block(texts[0][:20], texts[1][:20])
    np.testing.assert_allclose(compiled.scores, expected.scores, rtol=0, atol=1e-5)


def test_part_of_a_passage_is_what_is_left():
    assert Separation(1, 24, 102).passage_part(160) == 136
    with pytest.raises(ConfigError, match="give at least 26"):
        Separation(1, 24, 102).passage_part(25)
