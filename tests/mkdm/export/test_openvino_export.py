import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import lexical_part, separate_student, spread_scores, tiny_config, tiny_student
from transformers import AutoModelForSequenceClassification

from mkdm.errors import ConfigError, InputError, ModelError
from mkdm.export.openvino_export import ExportSettings, export_model
from mkdm.export.quality_gate import ValidationPairs
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.ir_files import BY_SPEED, check_backend, read_export
from mkdm.scoring import machine
from mkdm.scoring.scorer import Scorer
from mkdm.train.lexical import with_lexical

openvino = pytest.importorskip("openvino")
BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
PRECISIONS = ("fp32", "bf16", "int8") if BF16 else ("fp32", "int8")
LENIENT = ExportSettings(PRECISIONS, max_auc_loss=1.0)


@pytest.fixture(scope="module")
def validation(texts) -> ValidationPairs:
    queries, passages = texts
    return ValidationPairs(queries, queries, passages, np.arange(len(queries)) % 3 // 2)


@pytest.fixture(scope="module")
def exported_folder(student_folder, texts, validation, tmp_path_factory) -> Path:
    """The tiny student with IR files that all passed. To be copied, not changed."""
    folder = Path(shutil.copytree(student_folder, tmp_path_factory.mktemp("exported") / "student"))
    export_model(folder, (texts[0][:40], texts[1][:40]), validation, LENIENT, {"calibration": "here"})
    return folder


def test_fp32_equals_torch_in_batches_of_any_shape(exported_folder, texts):
    expected = Scorer.load(exported_folder, "torch", "fp32").score(*texts)
    for budget in (None, 1, 700):
        scores = Scorer.load(exported_folder, "openvino", "fp32", token_budget=budget).score(*texts)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("separate", [0, 2])
def test_lexical_part_is_added_to_what_the_files_say(separate, tokenizers, texts, validation, tmp_path):
    tokenizer = tokenizers["bert"]
    student = separate_student("bert", tokenizer, 4, separate, 128)
    save_checkpoint(with_lexical(student, lexical_part(tokenizer)), tokenizer, tmp_path)
    export_model(tmp_path, (texts[0][:5], texts[1][:5]), validation, ExportSettings(("fp32",), max_auc_loss=1.0))
    expected = Scorer.load(tmp_path, "torch", "fp32").score_window(*texts)
    found = Scorer.load(tmp_path, "openvino", "fp32").score_window(*texts)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
    save_checkpoint(student, tokenizer, tmp_path / "plain")
    others = Scorer.load(tmp_path / "plain", "torch", "fp32").score(*texts)
    assert np.abs(found.scores - others).max() > 0.01


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_others_stay_near(exported_folder, texts, precision):
    expected = Scorer.load(exported_folder, "torch", "fp32").score(*texts)
    scorer = Scorer.load(exported_folder, "openvino", precision)
    assert scorer.precision == precision
    drift = np.abs(scorer.score(*texts) - expected)
    assert 0 < drift.max() < 0.2


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_teacher_without_token_types(family, tokenizers, texts, validation, tmp_path):
    config = tiny_config(family, tokenizers[family])
    config.num_labels = 1
    torch.manual_seed(0)
    save_checkpoint(spread_scores(AutoModelForSequenceClassification.from_config(config)), tokenizers[family], tmp_path)
    export = export_model(tmp_path, (texts[0][:5], texts[1][:5]), validation, ExportSettings(("fp32",)))
    assert export.exported["fp32"].passed
    assert export.exported["fp32"].figures["max_score_drift"] <= 1e-5


def test_executors_of_one_machine_are_not_bound_to_the_same_cores(exported_folder):
    model = Scorer.load(exported_folder, "openvino", "fp32", threads=1).backend._model
    assert not model.get_property("ENABLE_CPU_PINNING")
    assert model.get_property("INFERENCE_NUM_THREADS") == 1


def test_record_tells_what_was_made_and_how_it_did(exported_folder):
    export = read_export(exported_folder)
    assert set(export.exported) == set(PRECISIONS)
    assert export.about["calibration"] == "here"
    assert {"openvino", "nncf"} <= export.tools.keys()
    for one in export.exported.values():
        assert one.passed
        assert one.figures["pairs_per_s"] > 0
        assert {"rank_correlation", "auc_change", "accuracy_change", "max_score_drift"} <= one.figures.keys()
        assert {Path(name).suffix for name in one.sha256} == {".xml", ".bin"}


def test_same_seed_makes_the_same_files(exported_folder, texts, validation, tmp_path):
    again = Path(shutil.copytree(exported_folder, tmp_path / "again"))
    export = export_model(again, (texts[0][:40], texts[1][:40]), validation, LENIENT)
    assert export.version() == read_export(exported_folder).version()


def test_auto_takes_the_fastest_that_passed(exported_folder, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(exported_folder, tmp_path / "student"))
    record = folder / "openvino" / "export.json"
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx2", "avx512_vnni"})
    assert Scorer.load(folder).precision == "int8"
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx2"})
    fastest = next(name for name in BY_SPEED if name in PRECISIONS and name != "int8")
    assert Scorer.load(folder).precision == fastest, "int8 is not quick without instructions of its own"
    monkeypatch.undo()
    assert machine.cpu_flags() & {"fpu", "fp"}
    assert Scorer.load(folder, "torch", "fp32").precision == "fp32"
    fields = json.loads(record.read_text())
    fields["exported"]["int8"]["passed"] = False  # as if forced
    record.write_text(json.dumps(fields))
    assert Scorer.load(folder).precision == fastest
    assert Scorer.load(folder, precision="int8").precision == "int8"
    shutil.rmtree(folder / "openvino")
    assert type(Scorer.load(folder).backend).__name__ == "TorchBackend"


def test_refused_is_not_kept_and_forced_is(exported_folder, texts, validation, tmp_path):
    folder = Path(shutil.copytree(exported_folder, tmp_path / "student"))
    calibration = (texts[0][:5], texts[1][:5])
    strict = ExportSettings(("int8",), max_auc_loss=-1.0)
    export = export_model(folder, calibration, validation, strict)
    assert "int8" in export.refused
    assert set(export.exported) == set(PRECISIONS) - {"int8"}, "the others stay"
    assert not (folder / "openvino" / "int8.bin").exists()
    assert Scorer.load(folder, "openvino", "fp32").precision == "fp32"
    with pytest.raises(ModelError, match="no int8 IR file: it was refused for its quality"):
        check_backend(folder, "auto", "int8")
    forced = export_model(folder, calibration, validation, ExportSettings(("int8",), max_auc_loss=-1.0, force=True))
    assert not forced.exported["int8"].passed
    assert check_backend(folder, "auto", "int8") == forced.version("int8")
    assert check_backend(folder, "auto", "auto") == forced.version() != forced.version("int8")


def test_files_that_do_not_belong_to_the_model(exported_folder, tmp_path, tokenizers):
    folder = Path(shutil.copytree(exported_folder, tmp_path / "student"))
    (folder / "openvino" / "fp32.bin").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"fp32\.bin has changed since it was exported"):
        Scorer.load(folder, "openvino", "fp32")
    (folder / "openvino" / "fp32.bin").unlink()
    with pytest.raises(ModelError, match=r"fp32\.bin is missing"):
        Scorer.load(folder, "openvino", "fp32")
    save_checkpoint(tiny_student("bert", tokenizers["bert"]), tokenizers["bert"], folder)
    with pytest.raises(ModelError, match=r"was made of model version \w+, the folder is \w+ now"):
        Scorer.load(folder)
    (folder / "openvino" / "export.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        Scorer.load(folder)


@pytest.mark.parametrize(
    ("backend", "precision", "error", "message"),
    [
        ("openvino", "auto", ModelError, "has no IR files that passed their gate: run mkdm export-model --model"),
        ("auto", "int8", ModelError, "has no int8 IR file: run mkdm export-model"),
        ("torch", "int8", ConfigError, "int8 is run by the openvino backend"),
        ("openvino", "fp16", ConfigError, "fp16 is for torch on a GPU"),
    ],
)
def test_what_is_not_there_is_told(student_folder, backend, precision, error, message):
    with pytest.raises(error, match=message):
        Scorer.load(student_folder, backend, precision)


def test_version_is_that_of_the_files_that_may_be_run(exported_folder):
    export = read_export(exported_folder)
    versions = {name: export.version(name) for name in ("auto", *PRECISIONS)}
    assert len(set(versions.values())) == len(versions)
    without = replace(export, exported={"fp32": export.exported["fp32"]})
    assert without.version("fp32") == versions["fp32"], "int8 beside it changes no run in fp32"
    forced = replace(export, exported=export.exported | {"int8": replace(export.exported["int8"], passed=False)})
    assert forced.version() != versions["auto"], "auto would take another file"


def test_pairs_that_cannot_be_scored_are_left_out(exported_folder, texts, validation, tmp_path):
    folder, said = Path(shutil.copytree(exported_folder, tmp_path / "student")), []
    columns = (validation.query_ids, [" ", *validation.queries[1:]], validation.passages)
    some = ValidationPairs(*columns, validation.golden_labels)
    fp32 = ExportSettings(("fp32",))
    export_model(folder, (["a", "a " * 200], ["a", "a"]), some, fp32, say=said.append)
    assert any("1 of 2 calibration pairs left out" in text for text in said)
    assert any("1 of 300 validation pairs left out, such as one where the query has no token" in text for text in said)
    before = read_export(folder)
    with pytest.raises(InputError, match="none of the 1 calibration pairs can be scored"):
        export_model(folder, ([" "], ["a"]), some, fp32)
    assert read_export(folder) == before, "the earlier export stays"


def test_folder_that_cannot_be_written(exported_folder, texts, validation, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(exported_folder, tmp_path / "student"))
    before = read_export(folder)

    def full(path, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mkdm.export.openvino_export.file_hash", full)
    with pytest.raises(ModelError, match=r"cannot write .*openvino: No space left on device"):
        export_model(folder, (texts[0][:5], texts[1][:5]), validation, ExportSettings(("fp32",)))
    assert read_export(folder) == before
    assert [path.name for path in folder.glob("openvino*")] == ["openvino"]


def test_files_of_another_tool_stay(student_folder, texts, validation, tmp_path):
    folder = Path(shutil.copytree(student_folder, tmp_path / "student"))
    theirs = {"openvino_model.xml": b"<net/>", "openvino_model.bin": b"weights", "sub/openvino_config.json": b"{}"}
    for name, content in theirs.items():
        (folder / "openvino" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "openvino" / name).write_bytes(content)
    assert read_export(folder) is None
    calibration = (texts[0][:5], texts[1][:5])
    for _ in range(2):
        export_model(folder, calibration, validation, ExportSettings(("fp32",)))
        assert {name: (folder / "openvino" / name).read_bytes() for name in theirs} == theirs
        assert read_export(folder).exported["fp32"].passed
    assert [path.name for path in folder.glob("openvino*")] == ["openvino"]


@pytest.mark.parametrize("name", ["export.json", "fp32.xml", "int8.bin"])
def test_file_of_another_tool_is_not_overwritten(name, student_folder, texts, validation, tmp_path):
    folder = Path(shutil.copytree(student_folder, tmp_path / "student"))
    (folder / "openvino").mkdir()
    (folder / "openvino" / name).write_text('{"made_by": "another tool"}')
    assert check_backend(folder, "auto", "auto") is None, "a foreign export.json is no record of ours"
    with pytest.raises(ModelError, match=rf"{name} was not made by mkdm export-model, .* move it away"):
        export_model(folder, (texts[0][:5], texts[1][:5]), validation, ExportSettings(("fp32",)))
    assert (folder / "openvino" / name).read_text() == '{"made_by": "another tool"}'


def test_export_for_the_other_label_is_refused(tokenizers, texts, validation, tmp_path):
    config = tiny_config("bert", tokenizers["bert"])
    config.id2label = {0: "relevant", 1: "irrelevant"}
    torch.manual_seed(0)
    save_checkpoint(spread_scores(AutoModelForSequenceClassification.from_config(config)), tokenizers["bert"], tmp_path)
    export_model(tmp_path, (texts[0][:5], texts[1][:5]), validation, ExportSettings(("fp32",)))
    scores = [Scorer.load(tmp_path, name, "fp32").score(*texts) for name in ("openvino", "torch")]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)
    record = tmp_path / "openvino" / "export.json"
    record.write_text(record.read_text().replace('"first_label": true', '"first_label": false'))
    with pytest.raises(ModelError, match="was made for another of the model's labels"):
        Scorer.load(tmp_path, "openvino", "fp32")


def test_separate_layers_make_two_files_a_precision(tokenizers, texts, validation, tmp_path):
    save_checkpoint(separate_student("bert", tokenizers["bert"], 3, 1, 60), tokenizers["bert"], tmp_path)
    export = export_model(tmp_path, (texts[0][:20], texts[1][:20]), validation, LENIENT)
    assert set(export.exported) == set(PRECISIONS)
    for name, one in export.exported.items():
        assert set(one.sha256) == {f"{name}{end}" for end in (".xml", ".bin", "-text.xml", "-text.bin")}
    assert export.exported["fp32"].figures["max_score_drift"] <= 1e-5
    queries, passages = [*texts[0][:20], None, "a " * 80], [*texts[1][:15], "", texts[1][0]]
    expected = Scorer.load(tmp_path, "torch", "fp32").score_block(queries, passages)
    for precision in PRECISIONS:
        for budget in (None, 100):
            scorer = Scorer.load(tmp_path, "openvino", precision, token_budget=budget)
            found = scorer.score_block(queries, passages)
            assert found.errors == expected.errors
            drift = np.nanmax(np.abs(found.scores - expected.scores))
            assert drift <= 1e-5 if precision == "fp32" else 0 < drift < 0.2
    assert Scorer.load(tmp_path).precision == ("int8" if machine.multiplies_int8() else "fp32")
    (tmp_path / "openvino" / "fp32-text.bin").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"fp32-text\.bin has changed since it was exported"):
        Scorer.load(tmp_path, "openvino", "fp32")


def test_states_are_rounded_to_the_nearest_bf16():
    from mkdm.scoring.openvino_backend import _bf16

    values = np.array([1.0, 1.00390625, 1.01171875, -2.5, np.nan, np.inf, 0.0], dtype=np.float32)  # two ties
    found = (_bf16(values).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found, torch.from_numpy(values).bfloat16().float().numpy())
