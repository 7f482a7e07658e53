import json

import pytest
from training_sets import write_training_set
from transformers import AutoTokenizer

from mkdm.errors import InputError
from mkdm.model.folder import tokenizer_version
from mkdm.train.reading_order import plan, rank_rows
from mkdm.train.training_set import MANIFEST, TrainingSet, stable_share


@pytest.fixture
def training_set(tmp_path):
    return write_training_set(tmp_path / "a set", {"train": [40, 30, 35, 41, 38, 33, 36], "valid": [12]})


def test_the_manifest_is_read_as_it_was_written(training_set):
    assert TrainingSet.read(training_set.folder) == training_set
    assert training_set.rows("train") == 253
    assert training_set.rows("valid") == 12


def test_no_manifest_another_format_and_damage_are_told(training_set, tmp_path):
    with pytest.raises(InputError, match=r"no training set at .*mkdm export-training-set"):
        TrainingSet.read(tmp_path / "nowhere")
    manifest = tmp_path / "a set" / MANIFEST
    text = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(text) | {"format": 99}))
    with pytest.raises(InputError, match="another format"):
        TrainingSet.read(training_set.folder)
    for damaged in (text[:-200], "[]", json.dumps({"format": 1})):
        manifest.write_text(damaged)
        with pytest.raises(InputError, match="damaged"):
            TrainingSet.read(training_set.folder)


def test_an_empty_or_unknown_split_tells_which_there_are(training_set):
    with pytest.raises(InputError, match=r"no row of the split 'test'; it has train \(253 rows\), valid \(12 rows\)"):
        training_set.rows("test")


def test_a_missing_file_and_a_changed_one_are_named(training_set, tmp_path):
    training_set.check_files("train")
    first, second = (tmp_path / "a set" / file.path for file in training_set.files[:2])
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    with pytest.raises(InputError, match=r"file=0/part.zstd.parquet has changed .*--overwrite"):
        training_set.check_files("train")
    first.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"file=0/part.zstd.parquet has .* bytes, not"):
        training_set.check_files("train")
    training_set.check_files("valid")
    second.unlink()
    first.write_bytes(content)
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    with pytest.raises(InputError, match=r"file=1/part.zstd.parquet cannot be read"):
        training_set.check_files("train")


def test_row_groups_go_to_ranks_once_evenly_and_anew_each_epoch(training_set):
    for world in (1, 2, 3, 7):
        ranks = plan(training_set, "train", seed=3, epoch=1, world=world)
        assert sorted(group.index for groups in ranks for group in groups) == list(range(7))
        rows = rank_rows(training_set, "train", seed=3, epoch=1, world=world)
        assert rows == [sum(group.rows for group in groups) for groups in ranks]
        assert max(rows) - min(rows) <= 41
        assert ranks == plan(training_set, "train", seed=3, epoch=1, world=world)
    orders = [[g.index for g in plan(training_set, "train", seed=3, epoch=epoch)[0]] for epoch in range(5)]
    assert len(set(map(tuple, orders))) == 5
    assert [g.index for g in plan(training_set, "train", seed=3, epoch=1, shuffle=False)[0]] == list(range(7))
    assert (
        len({frozenset(g.index for g in plan(training_set, "train", seed=3, epoch=e, world=2)[0]) for e in range(9)})
        > 1
    )


def test_ranks_of_like_row_groups_differ_by_little(tmp_path):
    sizes = [1000 + 17 * (i % 5) for i in range(24)]
    training_set = write_training_set(tmp_path / "set", {"train": sizes}, max_length=10)
    rows = rank_rows(training_set, "train", seed=0, epoch=0, world=8)
    assert max(rows) - min(rows) <= 68


def test_more_ranks_than_row_groups_are_refused(training_set):
    with pytest.raises(InputError, match=r"7 row groups, fewer than the 8 ranks: .*--row-group-rows"):
        rank_rows(training_set, "train", seed=0, epoch=0, world=8)


def test_a_tokenizer_is_known_by_what_it_does(tokenizers, tmp_path):
    tokenizer = tokenizers["bert"]
    version = tokenizer_version(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    again(["a text"], padding="max_length", truncation=True, max_length=8)
    assert tokenizer_version(again) == version
    assert len(version) == 16
    others = {tokenizer_version(tokenizers[family]) for family in ("roberta", "xlm-roberta")}
    assert len(others - {version}) == 2
    again.add_tokens(["oneandonly"])
    assert tokenizer_version(again) != version


def test_another_tokenizer_is_refused_with_both_versions(tokenizers, tmp_path):
    version = tokenizer_version(tokenizers["bert"])
    training_set = write_training_set(tmp_path / "set", {"train": [5]}, tokenizer=version)
    training_set.check_tokenizer(tokenizers["bert"])
    other = tokenizer_version(tokenizers["roberta"])
    with pytest.raises(InputError, match=rf"encoded by tokenizer {version}, this one is {other}: .*--tokenizer"):
        training_set.check_tokenizer(tokenizers["roberta"])


def test_the_stable_share_is_what_it_was():
    assert stable_share("amazon:5dd47563cc027a086d65c832") == 0.0028305052796724663
    shares = [stable_share(f"query {i}") for i in range(4000)]
    assert sum(share < 0.25 for share in shares) == pytest.approx(1000, abs=100)
