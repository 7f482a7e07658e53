import json
import shutil

import numpy as np
import pytest
from tiny_models import tiny_student

from mkdm.errors import ConfigError, MachineError, ModelError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.folder import file_hash, model_version, models_version
from mkdm.model.ir_files import Export, ExportedModel
from mkdm.model.tokenizer import load_tokenizer
from mkdm.scoring import machine, openvino_backend, precision_choice
from mkdm.scoring.ensemble import Ensemble, load_scorer
from mkdm.scoring.precision_choice import Candidate, candidates, pairs_per_second, prefer, require_machine, settle
from mkdm.scoring.scorer import Scorer

pytest.importorskip("openvino")
XEON = {"avx512_vnni", "avx512_bf16"}
FP32, BF16, INT8 = (Candidate("openvino", name) for name in ("fp32", "bf16", "int8"))


@pytest.fixture
def cpu(monkeypatch):
    """Makes this machine one without a GPU that has these flags."""

    def has(*flags: str) -> None:
        monkeypatch.setattr(machine, "cpu_flags", lambda: set(flags))
        monkeypatch.setattr(precision_choice, "has_gpu", lambda: False)
        precisions = ("int8", "bf16", "fp32") if "avx512_bf16" in flags else ("fp32", "int8")
        monkeypatch.setattr(openvino_backend, "machine_precisions", lambda: precisions)

    return has


def exported(folder, **passed: bool):
    """The folder with a record of IR files: which passed their gate; of False, what was forced."""
    files = {name: ExportedModel({f"{name}.xml": "0", f"{name}.bin": "0"}, one) for name, one in passed.items()}
    (folder / "openvino").mkdir(exist_ok=True)
    Export(model_version(folder), 128, {}, {}, {}, files).write(folder / "openvino")
    return folder


@pytest.fixture
def student(student_folder, tmp_path):
    return shutil.copytree(student_folder, tmp_path / "student")


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ((100, 104, 150), INT8),
        ((100, 109, 109), FP32),
        ((100, 150, 160), BF16),
        ((100, 110, 121), INT8),
        ((111.4, 90, 107.6), FP32),
    ],
)
def test_less_exact_one_must_be_clearly_quicker(rates, chosen):
    assert prefer(dict(zip((FP32, BF16, INT8), map(float, rates), strict=True))) == chosen


def test_what_no_gate_has_judged_must_gain_more():
    unjudged = Candidate("torch", "bf16", precision_choice.UNJUDGED_GAIN)
    plain = Candidate("torch", "fp32")
    assert prefer({plain: 100.0, unjudged: 124.0}) == plain
    assert prefer({plain: 100.0, unjudged: 125.0}) == unjudged


def test_candidates_passed_their_gate_and_suit_the_machine(cpu, student):
    def named(**more) -> list[str]:
        return [str(way) for way in candidates(student, **more)]

    cpu(*XEON)
    assert named() == ["torch:fp32", "torch:bf16"]
    exported(student, fp32=True, bf16=True, int8=True)
    assert named() == ["openvino:fp32", "openvino:bf16", "openvino:int8"]
    assert named(backend="torch") == ["torch:fp32", "torch:bf16"]
    exported(student, fp32=True, bf16=False, int8=True)
    assert named() == ["openvino:fp32", "openvino:int8"], "what was refused is none, by torch neither"
    assert named(backend="torch") == ["torch:fp32"], "nor where torch is asked for"
    exported(student, int8=True)
    assert named() == ["torch:fp32", "openvino:int8"]
    cpu("avx2")
    assert named() == ["torch:fp32"], "int8 is cut at 16 bits by AVX2"
    with pytest.raises(ModelError, match=r"no IR file but int8 for auto, and .* does not multiply that exactly"):
        candidates(student, "openvino")
    exported(student, fp32=True, int8=True)
    assert named() == ["openvino:fp32"]


def test_gpu_takes_its_own_precision_untimed(student, monkeypatch):
    monkeypatch.setattr(precision_choice, "has_gpu", lambda: True)
    monkeypatch.setattr("mkdm.scoring.torch_precision.fastest_precision", lambda device: "bf16")
    exported(student, fp32=True, int8=True)
    settled = settle(str(student))
    assert (settled.runs_as, settled.rates) == ("torch:bf16:cuda", {})
    assert Candidate.parse(settled.runs_as) == Candidate("torch", "bf16", device="cuda")


def test_settled_by_the_rates_of_the_models_own_files(cpu, student, monkeypatch):
    cpu(*XEON)
    timed = []

    def rate(scorer, tokenizer) -> float:
        timed.append((type(scorer.backend).__name__, scorer.precision, scorer.max_length))
        return {"fp32": 100.0, "bf16": 200.0}[scorer.precision]

    monkeypatch.setattr(precision_choice, "pairs_per_second", rate)
    settled = settle(str(student), max_length=40)
    assert timed == [("TorchBackend", "fp32", 40), ("TorchBackend", "bf16", 40)]
    assert settled.runs_as == "torch:bf16"
    assert str(settled).startswith("auto is torch:bf16 for this run: torch:fp32 100.0, torch:bf16 200.0 pairs/s on ")


def test_ensemble_is_settled_by_member_in_whatever_order(cpu, student, tokenizers, tmp_path, monkeypatch, texts):
    cpu(*XEON)
    other = tmp_path / "other"
    save_checkpoint(tiny_student("electra", tokenizers["electra"]), tokenizers["electra"], other)
    slow = model_version(other)

    def rate(scorer, tokenizer) -> float:
        return 100.0 if scorer.precision == "fp32" or scorer.model_version == slow else 200.0

    monkeypatch.setattr(precision_choice, "pairs_per_second", rate)
    both, turned = f"{student},{other}", f"{other},{student}"
    settled = settle(both)
    assert settle(turned).runs_as == settled.runs_as
    expected = {model_version(student): "bf16", slow: "fp32"}
    assert settled.runs_as == "+".join(f"torch:{expected[version]}" for version in sorted(expected))
    for models in (both, turned):
        scorer = load_scorer(models, runs_as=settled.runs_as)
        assert isinstance(scorer, Ensemble)
        assert {one.model_version: one.precision for one in scorer.members} == expected
        assert scorer.model_version == models_version(both)


def test_probe_scores_pairs_of_the_wanted_length(student, monkeypatch):
    monkeypatch.setattr(precision_choice, "ROUND_SECONDS", 0.02)
    scorer = Scorer.load(student, precision="fp32", max_length=100)
    seen, now = [], [0.0]
    score = scorer.score_block

    def look(queries, passages):
        result = score(queries, passages)
        assert not result.errors
        now[0] += 0.001 * len(queries) * len(passages)  # a machine of 1,000 pairs a second, however busy this one is
        seen.append((len(queries), len(passages), result.tokens.mean()))
        return result

    monkeypatch.setattr(scorer, "score_block", look)
    monkeypatch.setattr(precision_choice.time, "perf_counter", lambda: now[0])
    assert pairs_per_second(scorer, load_tokenizer(student)) == pytest.approx(1000)
    assert [one[:2] for one in seen[:3]] == [(1, 1), (1, 1), (2, 2)]
    assert np.mean([one[2] for one in seen]) > 70


@pytest.mark.parametrize(
    ("flags", "runs_as", "lacks"),
    [
        (("avx2",), "openvino:int8", "has no instruction that multiplies int8 exactly"),
        (("avx2", "avx512_vnni"), "openvino:bf16", "has no bf16"),
        (("avx2",), "torch:bf16", "has no bf16"),
        (tuple(XEON), "torch:bf16:cuda", "has no GPU"),
    ],
)
def test_machine_that_cannot_run_what_was_settled_says_so(cpu, student, flags, runs_as, lacks):
    cpu(*flags)
    wanted = rf"{machine.machine_name().partition(' ')[0]} \(.*cores\) {lacks}, and this run was settled to {runs_as}: "
    with pytest.raises(MachineError, match=wanted + r"give the job machines of one kind, or .* --precision .* fp32"):
        load_scorer(str(student), runs_as=runs_as)
    assert issubclass(MachineError, ConfigError)
    cpu(*XEON)
    if "cuda" not in runs_as:
        assert str(require_machine(runs_as)) == runs_as


def test_record_of_the_export_is_all_that_candidates_read(student):
    """A record without its files: what is missing shows where a file is loaded."""
    exported(student, fp32=True)
    record = student / "openvino" / "export.json"
    assert json.loads(record.read_text())["exported"]["fp32"]["passed"]
    assert file_hash(record)
    with pytest.raises(ModelError, match="is missing: run mkdm export-model again"):
        load_scorer(str(student), runs_as="openvino:fp32")
