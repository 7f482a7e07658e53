import gc
import sys
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import psutil
import pytest
from training_sets import write_training_set

from mkdm.errors import ConfigError, InputError
from mkdm.train import arrow_feed, petastorm_feed
from mkdm.train.reading_order import rank_rows
from mkdm.train.rows import TrainingRows

FEEDS = {"arrow": arrow_feed, "petastorm": petastorm_feed}
SIZES = [40, 30, 35, 41, 38, 33, 36]


@pytest.fixture(scope="module")
def training_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "a set, with spaces & ümlauts%20"
    return write_training_set(folder, {"train": SIZES, "valid": [12]})


@pytest.fixture(params=FEEDS)
def feed(request):
    return FEEDS[request.param]


def read(feed, training_set, split="train", **settings) -> list[TrainingRows]:
    return list(feed.row_groups(training_set, split, **({"seed": 5, "epoch": 0} | settings)))


def same(one: list[TrainingRows], other: list[TrainingRows]) -> bool:
    """Bit for bit, types and the places of NaN included."""
    if len(one) != len(other):
        return False
    arrays = [[getattr(rows, field.name) for field in fields(TrainingRows)] for rows in (*one, *other)]
    half = len(arrays) // 2
    return all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype == np.float32)
        for left, right in zip(arrays[:half], arrays[half:], strict=True)
        for a, b in zip(left, right, strict=True)
    )


def test_a_feed_gives_the_rows_of_the_files(feed, training_set):
    from training_sets import columns

    first, *_ = read(feed, training_set, shuffle=False)
    written = columns(SIZES[0], 24, 2, seed=0).to_pydict()
    assert first.input_ids.shape == (40, 24)
    assert first.soft_labels.shape == (40, 2)
    kinds = {field.name: getattr(first, field.name).dtype.name for field in fields(first)}
    assert kinds == {
        "pairs": "int64",
        "input_ids": "int32",
        "lengths": "int32",
        "query_lengths": "int32",
        "golden_labels": "int8",
        "soft_labels": "float32",
        "sources": "int8",
    }
    assert first.pairs.tolist() == written["pair"]
    assert first.input_ids.tolist() == written["input_ids"]
    assert first.golden_labels.tolist() == written["golden_label"]
    assert np.array_equal(first.soft_labels[:, 1], written["soft_label_1"], equal_nan=True)
    assert np.isnan(first.soft_labels).any()
    assert (first.golden_labels == -1).any()


@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"rank": 1, "world": 3}, {"epoch": 4, "workers": 3}])
def test_both_feeds_give_the_same_rows_in_the_same_order(training_set, settings):
    assert same(read(arrow_feed, training_set, **settings), read(petastorm_feed, training_set, **settings))


def test_the_same_arguments_give_the_same_again_with_any_number_of_workers(feed, training_set):
    once = read(feed, training_set, epoch=2)
    assert all(same(once, read(feed, training_set, epoch=2, workers=workers)) for workers in (1, 2, 3, 3, 3, 20))


def test_another_epoch_or_seed_gives_the_same_rows_in_another_order(feed, training_set):
    orders = [
        TrainingRows.concat(read(feed, training_set, seed=seed, epoch=epoch)).pairs
        for seed, epoch in ((5, 0), (5, 1), (6, 0))
    ]
    assert len({order.tobytes() for order in orders}) == 3
    assert len({np.sort(order).tobytes() for order in orders}) == 1
    in_files = TrainingRows.concat(read(feed, training_set, shuffle=False))
    row_of = {pair: row for row, pair in enumerate(in_files.pairs.tolist())}
    shuffled = TrainingRows.concat(read(feed, training_set))
    back = in_files.take(np.array([row_of[pair] for pair in shuffled.pairs.tolist()]))
    assert same([back], [shuffled])  # rows moved whole


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_share_the_rows_as_announced(feed, training_set, world):
    ranks = [read(feed, training_set, epoch=1, rank=rank, world=world, workers=2) for rank in range(world)]
    counts = [sum(map(len, groups)) for groups in ranks]
    assert counts == rank_rows(training_set, "train", seed=5, epoch=1, world=world)
    pairs = TrainingRows.concat([group for groups in ranks for group in groups]).pairs
    assert len(pairs) == len(set(pairs.tolist())) == sum(SIZES)


def test_an_empty_split_too_many_ranks_and_no_teacher(feed, training_set, tmp_path):
    with pytest.raises(InputError, match="no row of the split 'test'"):
        read(feed, training_set, split="test")
    with pytest.raises(InputError, match="fewer than the 8 ranks"):
        read(feed, training_set, rank=0, world=8)
    golden_only = write_training_set(tmp_path / "set", {"train": [7, 8]}, teacher_ids=())
    assert [rows.soft_labels.shape[1] for rows in read(feed, golden_only)] == [0, 0]


def test_a_file_that_goes_missing_or_is_damaged_is_named(feed, tmp_path):
    training_set = write_training_set(tmp_path / "set", {"train": [7, 8, 9]})
    path = Path(training_set.folder) / training_set.files[1].path
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"set/f+/train/file=\d/part.zstd.parquet cannot be read any more"):
        read(feed, training_set)
    path.unlink()
    with pytest.raises(InputError, match=r"set/f+/train/file=\d/part.zstd.parquet cannot be read any more"):
        read(feed, training_set)


def test_an_early_close_leaves_no_thread(feed, training_set):
    before = threading.active_count()
    for _ in range(5):
        rows = feed.row_groups(training_set, "train", seed=0, epoch=0, workers=3)
        next(rows)
        rows.close()
    assert threading.active_count() == before
    rows = feed.row_groups(training_set, "train", seed=0, epoch=0, workers=2)
    next(rows)
    del rows  # as a loop does that ends by an exception
    gc.collect()
    assert threading.active_count() == before


def test_memory_threads_and_open_files_stay_flat_over_epochs(feed, tmp_path):
    training_set = write_training_set(tmp_path / "set", {"train": [1000] * 12}, max_length=128)  # 6 MB an epoch
    process = psutil.Process()

    def epoch(number: int) -> None:
        assert sum(map(len, read(feed, training_set, epoch=number, workers=2))) == 12000

    for number in range(3):
        epoch(number)
    gc.collect()
    memory, threads, files = process.memory_info().rss, process.num_threads(), process.num_fds()
    for number in range(3, 15):
        epoch(number)
    gc.collect()
    assert process.memory_info().rss - memory < 48e6, "12 epochs of 6 MB each would be 72 MB"
    assert process.num_threads() <= threads + 1
    assert process.num_fds() <= files


def test_petastorm_tells_what_it_cannot_do(training_set, tmp_path, monkeypatch):
    odd = write_training_set(tmp_path / "set #1", {"train": [7]})
    with pytest.raises(ConfigError, match=r"Petastorm cannot read below .*set #1.*plain pyarrow feed"):
        read(petastorm_feed, odd)
    assert len(read(arrow_feed, odd)) == 1
    monkeypatch.setitem(sys.modules, "petastorm", None)
    with pytest.raises(ConfigError, match=r"mkdm\[train\]"):
        read(petastorm_feed, training_set)
