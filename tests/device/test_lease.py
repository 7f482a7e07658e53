"""What a GPU is lent for, at a hundredth of its size, on a CPU."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import SAMPLE

from mkdm.errors import InputError
from mkdm.experiments import Plan
from mkdm.experiments.tasks import score_set
from mkdm.model import load_tokenizer, model_version
from mkdm.scoring import PairEncoder
from mkdm.train import TrainingSet, row_groups
from udfs.training_rows import encoded_frame

HERE = Path(__file__).parent
STUDENT = SAMPLE / "student"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, pairs_folder) -> Path:
    """A set of three files, made without Spark."""
    import sets

    folder, rows = tmp_path_factory.mktemp("sets") / "labelled", sets.read_pairs(pairs_folder / "labelled")
    patch = pytest.MonkeyPatch()
    patch.setattr(sets, "ROWS_PER_FILE", len(rows) // 3)
    assert sets.write_set(rows, "train", str(STUDENT), folder) == len(rows)
    patch.undo()
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory, labelled) -> Path:
    """The sample student's labels of it, in two goes."""
    from labels import label

    folder = tmp_path_factory.mktemp("labels")
    assert not label(str(STUDENT), labelled, "bge-a", folder, seconds=-1)
    assert label(str(STUDENT), labelled, "bge-a", folder, at_once=2)
    return folder


def test_a_set_without_spark_has_the_ids_of_the_export(labelled, pairs_folder):
    training_set, texts = TrainingSet.read(str(labelled)), pd.read_parquet(pairs_folder / "labelled" / "pairs.parquet")
    training_set.check_files("train")
    keys = pd.read_parquet(labelled / "keys.parquet").merge(texts, how="left")
    encoder = PairEncoder(load_tokenizer(STUDENT), training_set.max_length)
    right = encoded_frame(encoder, keys["query"].tolist(), keys["passage"].tolist())
    found = list(row_groups(training_set, "train", seed=0, epoch=0, shuffle=False))
    assert len(found) == 3
    np.testing.assert_array_equal(np.concatenate([one.input_ids for one in found]), np.stack(right["input_ids"]))
    np.testing.assert_array_equal(np.concatenate([one.query_lengths for one in found]), right["query_length"])
    sources = [training_set.sources[number] for one in found for number in one.sources]
    assert sources == keys["source"].tolist()
    per_file = [set(keys.query_id[start : start + len(one)]) for start, one in _starts(found)]
    assert not set.intersection(*per_file[:2])  # a query is in one file


def _starts(parts):
    start = 0
    for part in parts:
        yield start, part
        start += len(part)


def test_labels_are_kept_small_and_come_back(labelled, labels, tmp_path):
    from labels import keep, read_kept, use

    kept = tmp_path / "labelled.parquet"
    assert keep(labelled, labels, kept) == ["bge-a"]
    right = score_set(STUDENT, TrainingSet.read(str(labelled)))
    frame, versions = read_kept(kept)
    assert versions == {"bge-a": model_version(STUDENT)}
    mine = pd.read_parquet(labelled / "keys.parquet").merge(frame, how="left")
    np.testing.assert_allclose(mine["bge-a"], right, atol=1e-3)
    made = use(labelled, [kept], tmp_path / "soft")
    assert made.teacher_ids == ["bge-a"]
    rows = list(row_groups(made, "train", seed=0, epoch=0, shuffle=False))
    np.testing.assert_allclose(np.concatenate([one.soft_labels[:, 0] for one in rows]), right, atol=1e-3)
    before = kept.read_bytes()
    assert keep(labelled, tmp_path / "nothing", kept) == ["bge-a"]  # what is kept stays, whatever else is gone
    assert read_kept(kept)[0].equals(frame)
    assert len(kept.read_bytes()) == len(before)


def test_another_tokenizer_labels_nothing(labelled, tmp_path, tokenizers):
    from labels import label
    from tiny_models import tiny_student

    from mkdm.model.checkpoint import save_checkpoint

    save_checkpoint(tiny_student("bert", tokenizers["bert"]), tokenizers["bert"], tmp_path / "other")
    with pytest.raises(InputError, match=r"was encoded by tokenizer"):
        label(str(tmp_path / "other"), labelled, "other", tmp_path / "labels")


def test_answers_and_look_alikes_are_chosen_before_the_rest():
    from choice import choose

    frame = pd.DataFrame(
        {
            "query_id": np.repeat(["a", "b"], 50),
            "passage_id": [f"p{i}" for i in range(100)],
            "first": np.tile(np.linspace(0, 1, 50), 2),
            "bm25_rank": np.tile(np.roll(np.arange(1, 51), 20), 2).astype(float),
        }
    )
    chosen = choose(frame, 12)
    for query, rows in chosen.groupby("query_id"):
        whole = frame[frame.query_id == query]
        assert {whole["first"].max()} <= set(rows["first"])
        assert rows.bm25_rank.min() == 1
    assert len(chosen) == 12
    assert (chosen["first"] > 0.95).sum() >= 4  # two of 50 would be drawn by chance
    assert choose(frame, 12).equals(chosen)


def test_what_comes_back_is_small_files_and_goes_back_whole(tmp_path, monkeypatch):
    import packing

    monkeypatch.setattr(packing, "FILE_BYTES", 4_000)
    monkeypatch.setattr(packing, "TOTAL_BYTES", 26_000)
    monkeypatch.setattr(packing, "SMALL_ROOM", 14_000)
    work, out = tmp_path / "work", tmp_path / "out"

    def run(kind: str, name: str, size: int) -> None:
        folder = work / kind / "runs" / name
        (folder / "training_state").mkdir(parents=True)
        (folder / "training_state" / "finished.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(np.random.default_rng(size).bytes(size))

    run("teachers", "bge-a-0", 10_000)
    order = ["mkdm-0", "ts-0", "bge-a-0"]
    assert packing.pack(work, out, order) == ["bge-a-0"]
    run("students", "mkdm-0", 7_000)
    assert packing.pack(work, out, order) == ["mkdm-0"]  # which is worth more; there is no room for both
    assert all(path.stat().st_size <= 14_000 for path in out.iterdir())
    assert len(list(out.iterdir())) <= packing.FILES
    there = {path.relative_to(work): path.read_bytes() for path in (work / "students").rglob("*") if path.is_file()}
    packing.restore(out, tmp_path / "again")
    assert {path: (tmp_path / "again" / path).read_bytes() for path in there} == there
    (out / "mkdm-0.tgz.01").unlink()
    assert packing.restore(out, tmp_path / "third") == ["small.tar"]
    assert packing.pack(work, tmp_path / "two", ["bge-a-0"], small=False) == ["bge-a-0"]


def test_rates_are_of_every_query_with_every_passage(tmp_path, pairs_folder):
    from rates import write_block

    block = write_block(pd.read_parquet(pairs_folder / "test" / "pairs.parquet"), tmp_path / "block.parquet", (8, 12))
    assert (block.query_id.nunique(), block.passage_id.nunique(), len(block)) == (8, 12, 96)
    assert pd.read_parquet(tmp_path / "block.parquet").equals(block)


def test_the_plans_name_what_there_is():
    teachers, students = Plan.read(str(HERE / "teachers.yaml")), Plan.read(str(HERE / "students.yaml"))
    names = [run.name for run in teachers.runs]
    assert all(list(run.teachers) == ["bge-a", "e5-a", "bge-b"] for run in students.runs)
    assert set(names) == {"bge-a", "e5-a", "bge-b"}
    assert [run.name for run in students.runs][:4] == ["mkdm-3-0", "mkdm-12-9", "mkdm-12-10", "mkdm-6-4"]


@pytest.mark.slow
def test_a_lease_that_is_cut_off_goes_on(tmp_path, pairs_folder, encoders):
    """Two calls, the second on another machine, with what came back of the first alone."""
    first, second = tmp_path / "out", tmp_path / "out2"

    def command(work: str, out: Path, *more: str) -> list[str]:
        folders = [str(folder) for folder in (pairs_folder, encoders, tmp_path / work, out)]
        flags = ["--seconds", "600", "--chosen", "60", "--parallel", "1", "--block", "20", "30", *more]
        return [str(HERE / "lease.sh"), *folders, *flags]

    environment = os.environ | {"PYTHON": "python"}
    begun = subprocess.Popen(command("work", first), env=environment, start_new_session=True)
    scores = tmp_path / "work" / "students" / "scores"
    while not list(scores.glob("*.npz")) and begun.poll() is None:
        time.sleep(0.5)
    time.sleep(6)  # what ends is kept every 5 s
    os.killpg(begun.pid, 9)
    begun.wait()
    again = command("work2", second, "--from", str(first))
    ended = subprocess.run(again, text=True, capture_output=True, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads((tmp_path / "work2" / "seconds.json").read_text())
    assert set(told) == {"make_sets", "train_teachers", "label_labelled", "label_unlabelled", "train_students", "rates"}
    assert not (tmp_path / "work2" / "teachers.log").exists()  # the labels were there
    assert json.loads((tmp_path / "work2" / "rates.json").read_text()).keys() >= {"ts-12-10-0", "CrossEncoder"}
    done = {path.stem for path in (tmp_path / "work2" / "students" / "scores").glob("*.npz")}
    assert done == {f"{run.name}-0" for run in Plan.read(str(HERE / "students.yaml")).runs}
    assert torch.cuda.is_available() or "no GPU" in ended.stdout
