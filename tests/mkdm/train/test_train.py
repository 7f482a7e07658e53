import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_config
from training_sets import learnable, write_training_set
from transformers import AutoModel

from mkdm.errors import ConfigError, InputError, ModelError, TrainingError
from mkdm.model.folder import model_folders, model_version, pinned_models, tokenizer_version
from mkdm.model.student import MkdmModel
from mkdm.scoring.scorer import Scorer
from mkdm.train.config import TrainConfig
from mkdm.train.loop import train
from mkdm.train.state import StateFolder

WIDTH = 24


@pytest.fixture(scope="module")
def training_set(tmp_path_factory, tokenizers) -> str:
    folder = tmp_path_factory.mktemp("sets") / "both"
    rows = {"train": [90, 80, 100, 90], "valid": [120]}
    write_training_set(folder, rows, WIDTH, tokenizer=tokenizer_version(tokenizers["bert"]), make=learnable)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tokenizers) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("bert", tokenizers["bert"])).save_pretrained(folder)
    tokenizers["bert"].save_pretrained(folder)
    return str(folder)


@pytest.fixture
def settings(encoder, training_set, tmp_path) -> dict:
    return {
        "encoder": encoder,
        "training_set": training_set,
        "output": str(tmp_path / "student"),
        "num_layers": 2,
        "epochs": 3,
        "learning_rate": 3e-3,
        "batch_size": 32,
        "token_budget": 300,
        "evaluate_every": 8,
        "checkpoint_every": 4,
        "precision": "fp32",
    }


def log_of(settings: dict) -> list[dict]:
    return [json.loads(line) for line in Path(settings["output"], "training_log.jsonl").read_text().splitlines()]


def weights(settings: dict) -> dict[str, torch.Tensor]:
    return load_file(Path(settings["output"], "model.safetensors"))


def same_weights(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


KINDS = {
    "teacher": {"teachers": "none", "num_layers": "all"},
    "golden-only": {"teachers": "none"},
    "1-o-1": {"teachers": "e5"},
    "MKDM": {},
    "soft labels alone": {"alpha": 1.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_student_learns_and_its_folder_scores(kind, settings):
    settings |= KINDS[kind]
    best = train(TrainConfig(**settings))
    assert best["auc"] > 0.9
    log = log_of(settings)
    assert [record["step"] for record in log[1:]] == list(range(1, len(log)))
    assert log[-1]["loss"] < log[1]["loss"]
    headers = {"teacher": {"golden"}, "golden-only": {"golden"}, "1-o-1": {"golden", "soft[e5]"}}
    headers |= {"MKDM": {"golden", "soft[bge]", "soft[e5]"}, "soft labels alone": {"soft[bge]", "soft[e5]"}}
    assert set(log[1]["losses"]) == headers[kind]
    assert set(best["auc_by_source"]) == {"amazon", "wiki"}
    scorer = Scorer.load(settings["output"], precision="fp32")
    assert scorer.max_length == WIDTH
    assert scorer.score(["what is a gasket"], ["a seal"]).shape == (1,)
    student = MkdmModel.from_pretrained(settings["output"])
    assert student.config.num_layers == (4 if kind == "teacher" else 2)
    assert student.config.alpha == settings.get("alpha", 0.9)
    assert not list(Path(settings["output"], "training_state").glob("state-*"))


@pytest.mark.parametrize("option", [{"list_weight": 0.5}, {"random_start": True}])
def test_options_train_the_same_student_and_leave_nothing_of_theirs(option, settings):
    plain = settings | {"output": settings["output"] + "-plain", "epochs": 1}
    train(TrainConfig(**plain))
    assert train(TrainConfig(**settings, **option))["auc"] > 0.9
    assert {name: tensor.shape for name, tensor in weights(settings).items()} == {
        name: tensor.shape for name, tensor in weights(plain).items()
    }
    assert not same_weights(weights(settings), weights(plain))


def test_weight_of_a_loss_below_0_is_refused(settings):
    with pytest.raises(ConfigError, match=r"--list-weight is -1.0; it must be at least 0"):
        TrainConfig(**settings, list_weight=-1.0)


def test_pairs_that_have_no_label_to_teach_are_left_out(settings):
    for kind, rows in (("golden-only", 239), ("MKDM", 360)):  # a third lacks the golden label; all have some label
        config = TrainConfig(**(settings | KINDS[kind] | {"epochs": 1, "output": settings["output"] + kind}))
        assert train(config)["pairs_seen"] == rows


def test_two_stages_and_what_the_first_one_teaches(settings, training_set):
    best = train(TrainConfig(**settings, stage_one_set=training_set, stage_one_epochs=2))
    log = log_of(settings)[1:]
    assert [record["stage"] for record in log] == ["stage one"] * 24 + ["training"] * 36
    assert set(log[0]["losses"]) == {"soft[bge]", "soft[e5]"}
    assert log[23]["learning_rate"] < log[30]["learning_rate"]
    assert log[23]["losses"]["soft[e5]"] < log[0]["losses"]["soft[e5]"] * 0.7
    assert best["stage"] == "training"
    student = MkdmModel.from_encoder(settings["output"], 2, ("e5", "new"), max_length=WIDTH)
    saved = weights(settings)
    assert torch.equal(student.soft_headers.weight[0], saved["soft_headers.weight"][1].float())
    assert torch.equal(student.golden_header.weight, saved["golden_header.weight"].float())


def test_same_seed_same_student_whatever_feeds_it(settings, tmp_path):
    settings |= {"dropout": 0.1, "epochs": 1, "match_weight": 0.5}
    runs = {"first": {}, "again": {"workers": 3}, "arrow": {"feed": "arrow"}, "seed": {"seed": 1}}
    for name, other in runs.items():
        runs[name] = settings | other | {"output": str(tmp_path / name)}
        train(TrainConfig(**runs[name]))
    first, again, arrow, seed = map(weights, runs.values())
    assert same_weights(first, again)
    assert same_weights(first, arrow)
    assert not same_weights(first, seed)


def command(settings: dict) -> list[str]:
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return ["-m", "mkdm.train", *flags]


def killed_at(settings: dict, step: int) -> None:
    """Run the command in a process of its own and kill it, -9, once its log holds that step."""
    log = Path(settings["output"], "training_log.jsonl")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as here: other numbers of threads round otherwise
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *command(settings)], env=environment, **quiet)
    while process.poll() is None and not (log.exists() and f'"step": {step}, ' in log.read_text()):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too quick to be killed"


def test_killed_run_goes_on_in_mid_epoch_as_if_nothing_had_been(settings, training_set, tmp_path):
    settings |= {"dropout": 0.1, "stage_one_set": training_set, "epochs": 2}
    whole = settings | {"output": str(tmp_path / "whole")}
    best = train(TrainConfig(**whole))
    for step in (3, 6, 17):  # before the first state, in mid-epoch of stage one, in mid-epoch of stage two
        killed_at(settings, step)
    assert train(TrainConfig(**settings))["auc"] == best["auc"]
    assert same_weights(weights(settings), weights(whole))
    one, other = log_of(settings)[1:], log_of(whole)[1:]
    assert [(r["step"], r["loss"], r.get("auc")) for r in one] == [(r["step"], r["loss"], r.get("auc")) for r in other]


def test_finished_run_does_nothing_and_another_one_is_refused(settings, capsys):
    settings |= {"epochs": 1}
    best = train(TrainConfig(**settings))
    assert train(TrainConfig(**settings)) == best
    assert "is finished: nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"holds another run \(seed: 0 → 3\): give the settings"):
        train(TrainConfig(**settings, seed=3))


def test_early_stop(settings):
    settings |= {"learning_rate": 1e-9, "evaluate_every": 2, "epochs": 9, "patience": 2}
    train(TrainConfig(**settings))
    aucs = [record["auc"] for record in log_of(settings)[1:] if "auc" in record]
    assert len(aucs) < 15
    assert max(aucs[:-2]) >= max(aucs[-2:])


@pytest.mark.slow
def test_two_processes_train_as_one_does(settings, tmp_path):
    settings |= {"epochs": 1, "dropout": 0.0, "stage_one_set": settings["training_set"]}
    settings |= {"evaluate_every": 50}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *command(settings)], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("student saved in") == 1
    log = log_of(settings)
    assert log[0]["processes"] == 2
    assert log[-1]["loss"] < log[1]["loss"]
    assert log[1]["pairs_per_s"] > 0
    assert log[-1]["pairs_seen"] > 2 * 320
    assert Scorer.load(settings["output"]).max_length == WIDTH


def test_loss_that_is_no_number_stops_before_it_does_harm(settings, monkeypatch):
    forward = MkdmModel.forward
    calls = []

    def poisoned(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        calls.append(self.training)
        if sum(calls) == 60:
            output.golden_logits = output.golden_logits * float("nan")
        return output

    monkeypatch.setattr(MkdmModel, "forward", poisoned)
    with pytest.raises(TrainingError, match=r"the loss is no number at step \d+, epoch 1 of training, among \d+ pairs"):
        train(TrainConfig(**settings))
    bad = json.loads(Path(settings["output"], "bad_batch_0.json").read_text())
    assert bad["xxhash64"]
    (state,) = Path(settings["output"], "training_state").glob("state-*")
    tensors = load_file(state / "tensors.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    monkeypatch.undo()
    assert train(TrainConfig(**settings))["auc"] > 0.9


def test_full_disk_leaves_the_last_state_whole(settings, monkeypatch):
    save = StateFolder.save

    def fail_at_the_second(self, step, content, tensors):
        if step > 4:
            monkeypatch.setattr("mkdm.train.state.save_file", full)
        save(self, step, content, tensors)

    def full(tensors, path):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateFolder, "save", fail_at_the_second)
    with pytest.raises(TrainingError, match=r"No space left on device\); the last state is whole, at .*state-00000004"):
        train(TrainConfig(**settings))
    assert [path.name for path in Path(settings["output"], "training_state").glob("*state*")] == ["state-00000004"]
    monkeypatch.undo()
    assert train(TrainConfig(**settings))["auc"] > 0.9
    assert [record["step"] for record in log_of(settings)[1:]] == list(range(1, 37))


def test_mlflow_in_a_local_folder(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlflow")
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "cache"))
    settings |= {"epochs": 1, "mlflow_experiment": "relevance", "register": "student", "register_alias": "champion"}
    best = train(TrainConfig(**settings))
    import mlflow

    (run,) = mlflow.search_runs(experiment_names=["relevance"], output_format="list")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["auc"] <= best["auc"]
    assert "losses/soft.e5." in run.data.metrics
    location, origin = pinned_models("models:/student@champion")
    assert origin["registered_run"] == run.info.run_id
    assert run.data.metrics["valid.auc"] == best["auc"]
    assert model_version(model_folders(location)[0]) == model_version(settings["output"])
    assert train(TrainConfig(**settings)) == best  # finished, and registered
    assert len(mlflow.MlflowClient().search_model_versions("name='student'")) == 1
    mlflow.set_tracking_uri(None)


def faults(settings: dict, tmp_path: Path) -> dict[str, tuple[dict, type[Exception], str]]:
    return {
        "empty split": ({"valid_set": settings["no_valid"]}, InputError, "has no row of the split 'valid'"),
        "teacher": ({"teachers": "bge,llm"}, ConfigError, "has no teacher 'llm'; it has bge, e5"),
        "tokenizer": ({"training_set": settings["other"]}, InputError, "was encoded by tokenizer 0000000000000000"),
        "set": ({"training_set": str(tmp_path)}, InputError, "no training set at"),
        "encoder": ({"encoder": "nowhere"}, ModelError, "nowhere"),
        "nothing to learn": ({"teachers": "none", "alpha": 1.0}, ConfigError, "--alpha is 1, but there is no teacher"),
        "no soft labels": (
            {"teachers": "none", "stage_one_set": settings["training_set"]},
            ConfigError,
            "--stage-one-set trains on soft labels, but there is no teacher",
        ),
    }


@pytest.fixture(scope="module")
def other_sets(tmp_path_factory, tokenizers) -> dict[str, str]:
    """Two training sets without validation pairs, one of them of another tokenizer."""
    folder = tmp_path_factory.mktemp("sets")
    write_training_set(folder / "other", {"train": [20]}, WIDTH)
    write_training_set(folder / "no_valid", {"train": [20]}, WIDTH, tokenizer=tokenizer_version(tokenizers["bert"]))
    return {"other": str(folder / "other"), "no_valid": str(folder / "no_valid")}


@pytest.mark.parametrize("fault", faults(dict.fromkeys(("other", "no_valid", "training_set"), ""), Path()))
def test_bad_input_is_named_before_the_first_step(fault, settings, other_sets, tmp_path):
    wrong, error, message = faults(settings | other_sets, tmp_path)[fault]
    with pytest.raises(error, match=message):
        train(TrainConfig(**(settings | wrong)))
    assert not Path(settings["output"]).exists()


def test_changed_file_is_noticed(settings, training_set, tmp_path):
    copy = shutil.copytree(training_set, tmp_path / "copy")
    file = next(copy.rglob("file=1/*.parquet"))
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(InputError, match="has changed since it was written"):
        train(TrainConfig(**(settings | {"training_set": str(copy)})))


def test_number_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="--alpha is 2"):
        TrainConfig(encoder="", training_set="", output="", alpha=2)
