import math
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from browser import opened, picture

from mkdm.pages.run import SCORE_BINS, ChunkWork, ExecutorWork, RunFigures, run_page

HOSTILE = "<script>alert('x')</script>\"&$x^2$"
BEGAN = datetime(2026, 11, 1, 8, tzinfo=UTC)


def scores(seed: int, shift: float = 0.0) -> list[int]:
    draws = np.clip(np.random.default_rng(seed).beta(0.7, 1.6, 20_000) + shift, 0, 1)
    return np.histogram(draws, SCORE_BINS, (0, 1))[0].tolist()


@pytest.fixture(scope="module")
def figures() -> RunFigures:
    rng = np.random.default_rng(0)
    chunks = [
        ChunkWork(
            BEGAN + timedelta(seconds=300 * (i + 1) + 40 * (i > 6)), 290.0, int(1.1e6 * rng.normal(1, 0.05)), 0.002
        )
        for i in range(14)
    ]
    return RunFigures(
        about=[("run", f"score-{HOSTILE}"), ("state", "complete, 14 of 14 chunks"), ("pairs", "15,400,000")],
        chunks=chunks,
        rejects={"null_passage": 1200, "query_too_long": 40, HOSTILE: 3},
        token_histogram={length: int(5e5 * math.exp(-(((length - 180) / 80) ** 2))) for length in range(16, 513, 16)},
        executors=[
            ExecutorWork(f"worker-{i}:41{i}", 3_800_000 - i, 7 * 10**8, 4000.0 + i, 1 + i // 3) for i in range(4)
        ],
        scores=scores(1, 0.03),
        before=scores(2),
        before_name="score-1, the same model",
    )


def test_page_draws_in_a_browser(figures, tmp_path):
    file = tmp_path / "run.html"
    file.write_text(run_page(figures, f"Scoring run {HOSTILE}"), encoding="utf-8")
    found, console = opened(file)
    assert console == []
    assert found["asked"] == 0, "the page asks for nothing else"
    assert found["wide"] <= 0, "nothing sticks out to the right"
    assert [one["caption"] for one in found["drawn"]] == [
        "Throughput over time",
        "Padding by chunk",
        "Length of the pairs",
        "Scores, beside the previous run",
        "Rejects by reason",
        "Load per executor",
    ]
    for one in found["drawn"]:
        assert one["width"] > 300, one
        assert one["height"] > 100, one
        assert one["shapes"] >= 1, one
        assert one["texts"] > 4, one
    picture(file, tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 20_000


def test_page_has_text_and_no_script(figures):
    page = run_page(figures, f"Scoring run {HOSTILE}")
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    for text in ("null_passage", "worker-3:413", "PSI", "Kolmogorov–Smirnov", "1,200", "96.5%", "a shift</td>"):
        assert text in page, text


def test_page_of_a_run_that_has_done_nothing_yet():
    nothing = RunFigures([("run", "r")], [], {}, {}, [], [0] * SCORE_BINS, [], "No earlier run.")
    page = run_page(nothing, "r")
    assert page.count("<svg") == 3
    for text in ("No earlier run.", "No pair was rejected.", "No chunk is done yet", "before 0.7"):
        assert text in page
    assert "nan" not in "".join(re.findall(r"<text.*?</text>|<td>.*?</td>", page, flags=re.DOTALL))


def test_two_drivers_at_once_add_up():
    chunks = [ChunkWork(BEGAN + timedelta(seconds=100), 100.0, 1000, 0.0)] * 2
    page = run_page(RunFigures([], chunks, {}, {}, [], [0] * SCORE_BINS), "r")
    assert ">20<" in re.sub(r"\s", "", page), "20 pairs/s on the axis, of two times 10"


def test_page_of_a_run_from_before_there_were_details():
    chunks = [ChunkWork(BEGAN + timedelta(seconds=100), 100.0, 1000, 0.0)]
    page = run_page(RunFigures([], chunks, {}, {}, [], [0] * SCORE_BINS), "r")
    assert "an engine before 0.7 made this run" in page
    assert "No chunk is done yet" not in page


def test_page_lists_two_hundred_executors_and_counts_the_rest():
    executors = [ExecutorWork(f"worker-{i}:41", 10, 100, 1.0, 1) for i in range(1203)]
    page = run_page(RunFigures([], [], {}, {}, executors, [0] * SCORE_BINS), "r")
    assert "<td>worker-199:41</td>" in page
    assert "<td>worker-200:41</td>" not in page
    assert "<p>and 1,003 more</p>" in page
