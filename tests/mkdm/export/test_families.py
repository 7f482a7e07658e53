"""Export of families that are not BERT's kin, through the gate, on batches of all shapes."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_teachers import chat_tokenizer, save_classifier, save_generator, t5_tokenizer

from mkdm.errors import ModelError
from mkdm.export.batch_shapes import batches_of_all_shapes, in_all_shapes
from mkdm.export.openvino_export import ExportSettings, export_model
from mkdm.export.quality_gate import ValidationPairs
from mkdm.model import FAMILIES, load_checkpoint
from mkdm.scoring import LoadedBackend, PairEncoder, Scorer, TorchBackend, machine_precisions, score_at_once
from mkdm.scoring.openvino_backend import keep_gates_apart

openvino = pytest.importorskip("openvino")
FP32 = ExportSettings(("fp32",))
FEW = ["deberta-v2", "modernbert", "gte", "eurobert", "qwen3"]
OTHERS = [name for name, family in FAMILIES.items() if name not in FEW and family.kind != "encoder-decoder"]


@pytest.fixture(scope="module")
def validation(texts) -> ValidationPairs:
    """Sixty pairs of many lengths."""
    queries = [text[:60] for text in texts[0][:60]]
    passages = [text[: 30 + 13 * place] for place, text in enumerate(texts[1][:60])]
    return ValidationPairs(queries, queries, passages, np.arange(60) % 2)


def export(folder, validation, settings=FP32, **more):
    return export_model(folder, (validation.queries[:5], validation.passages[:5]), validation, settings, **more)


def save(family, tokenizers, texts, folder):
    tokenizer = chat_tokenizer(texts[1]) if FAMILIES[family].kind == "decoder" else tokenizers["roberta"]
    if family in ("bert", "deberta-v2", "nomic_bert"):
        tokenizer = tokenizers["bert"]
    save_classifier(folder, family, tokenizer)


def check(folder, validation):
    made = export(folder, validation).exported["fp32"]
    assert made.passed
    assert made.figures["max_score_drift"] <= 1e-5
    pairs = validation.queries, validation.passages
    expected = Scorer.load(folder, "torch", "fp32").score(*pairs)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(Scorer.load(folder, "openvino", "fp32").score(*pairs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_classifiers(family, tokenizers, texts, validation, tmp_path):
    save(family, tokenizers, texts, tmp_path)
    check(tmp_path, validation)


@pytest.mark.skipif("bf16" not in machine_precisions(), reason="this CPU has no bf16")
@pytest.mark.parametrize("family", ["gte", "qwen3"])
def test_gated_layers_run_in_bf16_on_one_thread(family, tokenizers, texts, validation, tmp_path):
    """Of a size that OpenVINO would make one node of with AMX, which ends the process on a stream of one thread."""
    tokenizer = chat_tokenizer(texts[1]) if family == "qwen3" else tokenizers["roberta"]
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "max_position_embeddings": 300}
    save_classifier(tmp_path, family, tokenizer, **shape)
    export(tmp_path, validation, ExportSettings(("bf16",), force=True))
    pairs = validation.queries, validation.passages
    expected = Scorer.load(tmp_path, "torch", "fp32").score(*pairs)
    found = Scorer.load(tmp_path, "openvino", "bf16", threads=1).score(*pairs)
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    [xml] = (tmp_path / "openvino").glob("*.xml")
    assert keep_gates_apart(openvino.Core().read_model(xml)) == 1


@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_answers(family, texts, validation, tmp_path):
    tokenizer = t5_tokenizer(texts[1]) if family == "t5" else chat_tokenizer(texts[1])
    save_generator(tmp_path, family, tokenizer, **{} if family == "t5" else {"max_position_embeddings": 300})
    check(tmp_path, validation)


LESS_EXACT = ["modernbert", "qwen3"]


@pytest.mark.parametrize(
    "family",
    [*LESS_EXACT, *(pytest.param(name, marks=pytest.mark.slow) for name in (*FEW, *OTHERS) if name not in LESS_EXACT)],
)
def test_bf16_and_int8_stay_near(family, tokenizers, texts, validation, tmp_path):
    """In batches of all shapes; forced, since AUC of so tiny a model's scores lies within the rounding of int8."""
    save(family, tokenizers, texts, tmp_path)
    files = tuple(name for name in ("bf16", "int8") if name in machine_precisions())
    made = export(tmp_path, validation, settings=ExportSettings(files, force=True))
    pairs = validation.queries, validation.passages
    expected = Scorer.load(tmp_path, "torch", "fp32").score(*pairs)
    for name, near in zip(("bf16", "int8"), (0.05, 0.25), strict=True):
        if name in files:
            assert made.exported[name].figures["not_finite"] == 0
            for budget in (None, 300):
                found = Scorer.load(tmp_path, "openvino", name, None, budget).score(*pairs)
                np.testing.assert_allclose(found, expected, rtol=0, atol=near)


@pytest.mark.slow
def test_t5_has_bf16_and_no_int8(texts, validation, tmp_path):
    save_generator(tmp_path, "t5", t5_tokenizer(texts[1]))
    said: list[str] = []
    made = export(tmp_path, validation, settings=ExportSettings(("bf16", "int8"), force=True), say=said.append)
    assert "int8" not in {*made.exported, *made.refused}
    assert "int8 left out: a MonoT5 has no int8 file" in said
    with pytest.raises(ModelError, match="has no int8 file: take --precisions fp32,bf16"):
        export(tmp_path, validation, settings=ExportSettings(("int8",)))


def test_mean_over_positions(tokenizers, validation, tmp_path):
    save_classifier(tmp_path, "modernbert", tokenizers["roberta"], classifier_pooling="mean")
    check(tmp_path, validation)


def test_modernbert_of_transformers_is_refused_since_padding_out_of_reach_sees_nothing(
    tokenizers, validation, tmp_path, monkeypatch
):
    """Its own encoder's masks have rows without a key, of which OpenVINO makes no numbers."""
    save_classifier(tmp_path, "modernbert", tokenizers["roberta"])
    monkeypatch.setattr("mkdm.scoring.torch_backend.make_lean", lambda model, encoder: False)
    refused = export(tmp_path, validation).refused["fp32"]
    assert refused["not_finite"] > 0


def test_batches_have_all_shapes_and_what_is_wrong_on_one_is_found(tokenizers, validation, tmp_path):
    save_classifier(tmp_path, "bert", tokenizers["bert"])
    model, tokenizer, _ = load_checkpoint(tmp_path)
    encoder = PairEncoder(tokenizer, model.max_length)
    pairs = batches_of_all_shapes(encoder, validation)
    batches = [encoder.batch(one, np.arange(len(one.lengths))) for one in pairs]
    full = [bool(one.attention_mask.all()) for one in batches]
    assert {True, False} == set(full)
    assert any(len(one.input_ids) > 1 for one, all_real in zip(batches, full, strict=True) if all_real)
    assert len({one.input_ids.shape[1] for one in batches if len(one.input_ids) == 1}) >= 5
    backend = TorchBackend(model, "fp32")
    loaded = LoadedBackend(backend, tokenizer, model.max_length, "0")
    shapes = [(one, score_at_once(backend, encoder, one)) for one in pairs]
    clean = {"max_score_drift": 0.0, "not_finite": 0.0}
    assert in_all_shapes(loaded, shapes, clean)["max_score_drift"] <= 1e-6

    class WrongWherePadded:
        def score(self, batch):
            found = backend.score(batch)
            found[~batch.attention_mask.all(axis=1)] = np.nan
            return found

    assert in_all_shapes(replace(loaded, backend=WrongWherePadded()), shapes, clean)["not_finite"] > 0
