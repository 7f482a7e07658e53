"""ONNX files of a student and of rerankers: their scores with onnxruntime and tokenizers alone are the scorer's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import lexical_part, separate_student, spread_scores, tiny_config
from tiny_teachers import chat_tokenizer, save_classifier, save_generator
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from mkdm.errors import ModelError
from mkdm.export import ExportSettings, ValidationPairs, export_onnx
from mkdm.model import load_checkpoint, model_version, read_export, save_checkpoint
from mkdm.scoring import Scorer
from mkdm.train.lexical import with_lexical

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
LENIENT = ExportSettings(("fp32", "int8"), max_auc_loss=1.0)
FP32 = ExportSettings(("fp32",))


@pytest.fixture(scope="module")
def validation(texts) -> ValidationPairs:
    """Sixty pairs of many lengths."""
    queries = [text[:60] for text in texts[0][:60]]
    passages = [text[: 30 + 13 * place] for place, text in enumerate(texts[1][:60])]
    return ValidationPairs(queries, queries, passages, np.arange(60) % 2)


@pytest.fixture(scope="module")
def exported_folder(student_folder, validation, tmp_path_factory) -> Path:
    """The tiny student with both files. To be copied, not changed."""
    folder = Path(shutil.copytree(student_folder, tmp_path_factory.mktemp("onnx") / "student"))
    export_onnx(folder, (validation.queries[:5], validation.passages[:5]), validation, LENIENT, {"calibration": "here"})
    return folder


def outputs(folder: Path, precision: str, queries, passages, batch: int = 16) -> dict[str, np.ndarray]:
    """What a user without the engine gets: tokenizer.json and the file, nothing else."""
    tokenizer = Tokenizer.from_file(str(folder / "onnx" / "tokenizer.json"))
    path = str(folder / "onnx" / f"{precision}.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for start in range(0, len(queries), batch):
        pairs = list(zip(queries[start : start + batch], passages[start : start + batch], strict=True))
        encoded = tokenizer.encode_batch(pairs)
        arrays = {
            "input_ids": np.array([one.ids for one in encoded]),
            "attention_mask": np.array([one.attention_mask for one in encoded]),
            "token_type_ids": np.array([one.type_ids for one in encoded]),
        }
        found.append(session.run(["score", "logit"], {one.name: arrays[one.name] for one in session.get_inputs()}))
    return {
        name: np.concatenate(columns)
        for name, columns in zip(("score", "logit"), zip(*found, strict=True), strict=True)
    }


def check(folder: Path, validation: ValidationPairs, texts) -> None:
    export = export_onnx(folder, (validation.queries[:5], validation.passages[:5]), validation, FP32)
    assert export.exported["fp32"].passed
    expected = Scorer.load(folder, "torch", "fp32").score_window(*texts)
    assert np.ptp(expected.scores) > 1e-3
    for batch in (1, 16):
        found = outputs(folder, "fp32", *texts, batch)
        np.testing.assert_allclose(found["score"], expected.scores, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["logit"], expected.logits, rtol=0, atol=2e-4)


def test_lexical_part_is_in_the_file(student_folder, validation, texts, tmp_path):
    model, tokenizer, _ = load_checkpoint(student_folder)
    save_checkpoint(with_lexical(model.model, lexical_part(tokenizer)), tokenizer, tmp_path)
    check(tmp_path, validation, texts)
    others = Scorer.load(student_folder, "torch", "fp32").score(*texts)
    assert np.abs(outputs(tmp_path, "fp32", *texts)["score"] - others).max() > 0.01


def test_fp32_is_the_scorer_s_and_int8_stays_near(exported_folder, texts):
    pairs = texts[0], [text[: 20 + 7 * place % 800] for place, text in enumerate(texts[1])]
    found = Scorer.load(exported_folder, "torch", "fp32").score_window(*pairs)
    expected = found.scores
    assert min(found.tokens) < 30 < 128 == max(found.tokens), "some short, some cut"
    for batch in (1, 7, 64):
        found = outputs(exported_folder, "fp32", *pairs, batch)
        np.testing.assert_allclose(found["score"], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(1 / (1 + np.exp(-found["logit"])), expected, rtol=0, atol=1e-5)
    drift = np.abs(outputs(exported_folder, "int8", *pairs)["score"] - expected)
    assert 0 < drift.max() < 0.3


def test_record_and_metadata_tell_what_a_file_is(exported_folder):
    export = read_export(exported_folder, "onnx")
    assert set(export.exported) == {"fp32", "int8"}
    assert all(one.passed for one in export.exported.values())
    assert {"onnx", "onnxruntime"} <= export.tools.keys()
    assert export.about["calibration"] == "here"
    assert read_export(exported_folder) is None, "mkdm score takes no ONNX file for its own"
    for precision in export.exported:
        session = onnxruntime.InferenceSession(str(exported_folder / "onnx" / f"{precision}.onnx"))
        told = session.get_modelmeta().custom_metadata_map
        assert told["model_version"] == model_version(exported_folder) == export.model_version
        assert (told["precision"], told["max_length"]) == (precision, str(export.max_length))
    settings = json.loads((exported_folder / "onnx" / "tokenizer.json").read_text())
    assert (settings["truncation"]["max_length"], settings["truncation"]["strategy"]) == (
        export.max_length,
        "OnlySecond",
    )
    sizes = [(exported_folder / "onnx" / f"{name}.onnx").stat().st_size for name in ("int8", "fp32")]
    assert sizes[0] < sizes[1]


def test_what_is_there_stays(exported_folder, validation, tmp_path):
    folder = Path(shutil.copytree(exported_folder, tmp_path / "student"))
    (folder / "onnx" / "model.onnx").write_bytes(b"another tool's")
    pairs = validation.queries[:5], validation.passages[:5]
    before = read_export(folder, "onnx")
    after = export_onnx(folder, pairs, validation, FP32)
    assert after.exported["int8"] == before.exported["int8"]
    assert (folder / "onnx" / "model.onnx").read_bytes() == b"another tool's"
    assert not list((folder / "onnx").glob("tmp*"))
    (folder / "onnx" / "export.json").unlink()
    with pytest.raises(ModelError, match=r"fp32.onnx was not made by mkdm export-model, .* move it away"):
        export_onnx(folder, pairs, validation, FP32)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_rerankers(family, tokenizers, validation, texts, tmp_path):
    config = tiny_config(family, tokenizers[family])
    config.num_labels = 1
    torch.manual_seed(0)
    save_checkpoint(spread_scores(AutoModelForSequenceClassification.from_config(config)), tokenizers[family], tmp_path)
    check(tmp_path, validation, (texts[0][:80], texts[1][:80]))


@pytest.mark.parametrize("family", ["modernbert", pytest.param("deberta-v2", marks=pytest.mark.slow)])
def test_newer_rerankers(family, tokenizers, validation, texts, tmp_path):
    save_classifier(tmp_path, family, tokenizers["bert" if family == "deberta-v2" else "roberta"])
    check(tmp_path, validation, (texts[0][:40], texts[1][:40]))


def test_separate_layers_and_templates_are_refused(tokenizers, texts, validation, tmp_path):
    save_checkpoint(separate_student("bert", tokenizers["bert"], 3, 1, 60), tokenizers["bert"], tmp_path / "apart")
    save_generator(tmp_path / "asked", "qwen3", chat_tokenizer(texts[1]), max_position_embeddings=300)
    pairs = validation.queries[:5], validation.passages[:5]
    with pytest.raises(ModelError, match=r"separate layers is two graphs, .* export it with --format openvino"):
        export_onnx(tmp_path / "apart", pairs, validation, FP32)
    with pytest.raises(ModelError, match=r"asked by a prompt or template, which tokenizer\.json does not hold"):
        export_onnx(tmp_path / "asked", pairs, validation, FP32)
    assert not list(tmp_path.glob("*/onnx*"))
