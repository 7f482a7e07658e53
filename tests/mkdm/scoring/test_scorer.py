import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, spread_scores, tiny_config, tiny_student
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from mkdm.errors import ConfigError, InputError, RejectCode
from mkdm.model.checkpoint import PairModel, load_checkpoint, save_checkpoint
from mkdm.scoring.backend_choice import load_backend
from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.scorer import Scorer
from mkdm.scoring.torch_backend import TorchBackend, make_lean


def plain_scores(model, tokenizer, texts, max_length: int) -> np.ndarray:
    """What transformers gives for one padded batch in the order of the input, with its own pair encoding."""
    inputs = tokenizer(*texts, truncation="only_second", max_length=max_length, padding=True, return_tensors="pt")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    with torch.inference_mode():
        output = model.eval()(**inputs)
    if hasattr(output, "score"):
        return output.score.numpy()
    logits = output.logits
    return (torch.sigmoid(logits[:, 0]) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)[:, 1]).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_student_equals_the_plain_padded_forward(family, tokenizers, texts, tmp_path):
    student = tiny_student(family, tokenizers[family], ("bge", "e5"))
    save_checkpoint(student, tokenizers[family], tmp_path)
    expected = plain_scores(student, tokenizers[family], texts, 128)

    scores = Scorer.load(tmp_path, precision="fp32", token_budget=1000).score(*texts)

    assert scores.dtype == np.float32
    assert expected.std() > 1e-3, "scores that do not differ would prove nothing"
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_labels", [1, 2])
def test_teacher_equals_the_plain_padded_forward(family, num_labels, tokenizers, texts, tmp_path):
    config = tiny_config(family, tokenizers[family])
    config.num_labels = num_labels
    torch.manual_seed(0)
    teacher = spread_scores(AutoModelForSequenceClassification.from_config(config))
    save_checkpoint(teacher, tokenizers[family], tmp_path)
    expected = plain_scores(teacher, tokenizers[family], texts, 128)

    scores = Scorer.load(tmp_path, precision="fp32").score(*texts)

    assert expected.std() > 1e-3
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_the_lean_encoder(family, tokenizers):
    model = PairModel(tiny_student(family, tokenizers[family]), 128).eval()
    assert make_lean(model, PairEncoder(tokenizers[family], 128))
    inputs = tokenizers[family]("what is a gasket", "a seal", return_tensors="pt")
    assert model.encoder(**inputs).last_hidden_state.shape == (1, 1, 32)


class ReadsLastToken(BertForSequenceClassification):
    """A model whose answer is not in the first position."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = output.logits + self.bert(**inputs).last_hidden_state[:, -1, :1]
        return output


def test_encoder_is_kept_where_more_than_the_first_position_is_read(tokenizers):
    config = tiny_config("bert", tokenizers["bert"])
    config.num_labels = 1
    model = PairModel(ReadsLastToken(config), 128).eval()
    assert not make_lean(model, PairEncoder(tokenizers["bert"], 128))
    inputs = tokenizers["bert"]("what is a gasket", "a seal", return_tensors="pt")
    assert model.encoder(**inputs).last_hidden_state.shape[1] == inputs["input_ids"].shape[1]


def test_order_and_batches_do_not_matter(student_folder, texts):
    one_by_one = Scorer.load(student_folder, precision="fp32", token_budget=1).score(*texts)
    together = Scorer.load(student_folder, precision="fp32", token_budget=10**6).score(*texts)
    backwards = Scorer.load(student_folder, precision="fp32").score(texts[0][::-1], texts[1][::-1])[::-1]
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-5)
    np.testing.assert_allclose(backwards, one_by_one, rtol=0, atol=1e-5)


def test_windows_are_joined_in_order(student_folder, texts, monkeypatch):
    scorer = Scorer.load(student_folder, precision="fp32")
    whole = scorer.score(*texts)
    monkeypatch.setattr(scorer, "window", 7)
    np.testing.assert_allclose(scorer.score(*texts), whole, rtol=0, atol=1e-5)


def test_bf16_stays_near_fp32(student_folder, texts):
    fp32 = Scorer.load(student_folder, precision="fp32").score(*texts)
    bf16 = Scorer.load(student_folder, precision="bf16").score(*texts)
    assert np.abs(fp32 - bf16).max() < 0.05


def test_tokens_and_padding_are_counted(student_folder):
    scorer = Scorer.load(student_folder, precision="fp32", token_budget=1000)
    result = scorer.score_window(["a", "a", None], ["a", "a a a a", "a"])
    assert result.tokens.tolist() == [5, 8, 0]
    assert result.padded_tokens.tolist() == [8, 8, 0]


def test_score_names_the_first_pair_that_it_cannot_score(student_folder):
    with pytest.raises(InputError, match=r"pair 1 cannot be scored: the passage has no token: ' ' \(empty_passage\)"):
        Scorer.load(student_folder).score(["a", "a", "a"], ["a", " ", ""])


def test_score_wants_one_passage_per_query(student_folder):
    with pytest.raises(InputError, match="2 queries but 1 passages"):
        Scorer.load(student_folder).score(["a", "a"], ["a"])


def test_batch_that_raises_is_bisected_to_its_bad_row(student_folder, texts):
    loaded = load_backend(student_folder, "torch", "fp32")
    scorer = Scorer(loaded)
    expected = scorer.score_window(*texts).scores
    bad = 17
    bad_ids = scorer._encoder.batch(scorer._encoder.encode(*texts), np.array([bad])).input_ids[0]

    def raise_at_bad_row(module, args, kwargs):
        ids = kwargs["input_ids"].numpy()
        if any((row[: len(bad_ids)] == bad_ids).all() for row in ids if len(row) >= len(bad_ids)):
            raise RuntimeError("shapes do not fit")

    loaded.backend._model.register_forward_pre_hook(raise_at_bad_row, with_kwargs=True)
    result = scorer.score_window(*texts)

    assert {row: error.code for row, error in result.errors.items()} == {bad: RejectCode.MODEL_ERROR}
    assert result.errors[bad].message == "RuntimeError: shapes do not fit"
    good = np.arange(len(expected)) != bad
    np.testing.assert_allclose(result.scores[good], expected[good], rtol=0, atol=1e-5)
    assert np.isnan(result.scores[bad])


def test_non_finite_score_is_an_error_of_its_row(tokenizers):
    student = tiny_student("bert", tokenizers["bert"])
    unlucky = tokenizers["bert"].convert_tokens_to_ids("x")
    with torch.no_grad():
        student.encoder.embeddings.word_embeddings.weight[unlucky] = float("nan")
    backend = TorchBackend(PairModel(student, 128), "fp32")
    encoder = PairEncoder(tokenizers["bert"], 128)
    batch = encoder.batch(encoder.encode(["a", "x"], ["a", "a"]), np.arange(2))
    assert np.isnan(backend.score(batch)[:, 0]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "abacus"}, "no backend 'abacus'"),
        ({"precision": "int3"}, "no precision 'int3'"),
        ({"max_length": 129}, "takes 1 to 128 tokens"),
        ({"token_budget": 0}, "must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, student_folder):
    with pytest.raises(ConfigError, match=message):
        Scorer.load(student_folder, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs fp16")
def test_fp16_on_a_cpu_is_refused(student_folder):
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        Scorer.load(student_folder, precision="fp16")


def test_load_checkpoint_limits_length_to_what_the_student_was_trained_with(tokenizers, tmp_path):
    student = tiny_student("bert", tokenizers["bert"])
    student.config.max_length = 40
    save_checkpoint(student, tokenizers["bert"], tmp_path)
    assert load_checkpoint(tmp_path)[0].max_length == 40


def test_equal_pairs_are_scored_once_per_window(student_folder, texts):
    scorer = Scorer.load(student_folder, precision="fp32")
    rows = []
    score = scorer.backend.score
    scorer.backend.score = lambda batch: rows.append(len(batch.input_ids)) or score(batch)
    queries, passages = (list(some[:10]) for some in texts)
    result = scorer.score_window(queries * 5 + [None], passages * 5 + ["a"])
    assert sum(rows) == 10
    np.testing.assert_array_equal(result.scores[:50], np.tile(result.scores[:10], 5))
    assert (result.padded_tokens[10:] == 0).all()
    assert (result.tokens[:50] == np.tile(result.tokens[:10], 5)).all()
    assert list(result.errors) == [50]


@pytest.mark.slow
def test_compiled_model_gives_the_same_scores(student_folder, texts):
    compiled = Scorer.load(student_folder, "torch-compile", "fp32", token_budget=1000).score(*texts)
    np.testing.assert_allclose(compiled, Scorer.load(student_folder, "torch", "fp32").score(*texts), rtol=0, atol=1e-5)
