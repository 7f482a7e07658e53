"""The lists that come of a teacher's scores, against the same by hand: order, scale, border, rejects, lengths."""

import random
from itertools import pairwise

import numpy as np
import pytest

from jobs.rescoring.calibration import Calibration
from jobs.rescoring.lists import BELOW, Lists
from jobs.rescoring.teacher_run import Rescoring

COLUMNS = "query_id string, rank int, passage_id string, score float, model_version string, run_id string, more int"
COLUMNS += ", head boolean, teacher_score float, teacher_version string, teacher_run string"
MAP = Calibration((0.0, 0.3, 0.6, 1.0), (0.0, 0.05, 0.7, 1.0))
TOP = 20


def drawn(seed: int, queries: int = 60) -> list[tuple]:
    """Queries of 1 to 45 passages; scores with many ties; one of nine passages of a head was rejected."""
    chosen = random.Random(seed)
    rows = []
    for query in range(queries):
        passages = [f"p{number:02d}" for number in chosen.sample(range(90), chosen.randint(1, 45))]
        grid = chosen.choice((4, 1000))
        scores = {one: np.float32(chosen.randrange(grid + 1) / grid) for one in passages}
        ranked = sorted(passages, key=lambda one, scores=scores: (-scores[one], one))
        for rank, passage in enumerate(ranked, 1):
            read = rank <= TOP and chosen.random() > 1 / 9
            said = (float(np.float32(chosen.randrange(grid + 1) / grid)), "T", "teaching") if read else (None,) * 3
            own = (f"q{query}", rank, passage, float(scores[passage]), "S", "scoring", query)
            rows.append((*own, rank <= TOP, *said))
    return rows


def by_hand(rows: list[tuple], top_k: int) -> list[tuple]:
    """query_id, rank, passage_id, score, model_version, run_id, more."""
    made = []
    for query in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == query]
        mapped = {row[2]: float(MAP.at(np.float32(row[3]))) for row in mine}
        head = [(row, mapped[row[2]] if row[8] is None else row[8]) for row in mine if row[7]]
        border = BELOW * min(score for _, score in head)
        most = max((mapped[row[2]] for row in mine if not row[7]), default=0.0)
        shrink = border / most if most > border else 1.0
        tail = [(row, mapped[row[2]] * shrink) for row in mine if not row[7]]
        scored = [(np.float32(score), row) for row, score in head + tail]
        scored.sort(key=lambda one: (-one[0], one[1][2]))
        for rank, (score, row) in enumerate(scored[:top_k], 1):
            who = row[4:6] if row[8] is None else row[9:11]
            made.append((query, rank, row[2], pytest.approx(score, abs=1e-6), *who, row[6]))
    return made


@pytest.mark.parametrize("top_k", [5, TOP, 40])
def test_as_made_by_hand(spark, top_k):
    rows = drawn(top_k)
    rescoring = Rescoring(report=None, chain=[], rescored=None, top=TOP)  # type: ignore[arg-type]
    lists = Lists(spark.createDataFrame(rows, COLUMNS).repartition(3), rescoring, heads=1, read=0)
    found = [tuple(row) for row in lists.published(MAP, top_k).collect()]
    assert sorted(found, key=lambda row: (int(row[0][1:]), row[1])) == by_hand(rows, top_k)
    whole = {(row[0], row[2]): row for row in rows}
    for query in {row[0] for row in found}:
        mine = sorted(row for row in found if row[0] == query)
        assert [row[1] for row in mine] == list(range(1, min(top_k, len(_of(rows, query))) + 1))
        assert all(0 <= row[3] <= 1 for row in mine)
        assert all(one[3] > next_[3] or one[2] < next_[2] for one, next_ in pairwise(mine))
        assert all(one[3] >= next_[3] for one, next_ in pairwise(mine))
        heads = [row for row in _of(rows, query) if row[7]]  # of which a list may show a part
        least = min(float(MAP.at(np.float32(row[3]))) if row[8] is None else row[8] for row in heads)
        below = [row for row in mine if not whole[query, row[2]][7]]
        assert least == 0 or all(row[3] < least for row in below), "the head stands first"
        by_student = sorted(below, key=lambda row, query=query: (-whole[query, row[2]][3], row[2]))
        assert least == 0 or below == by_student, "what follows keeps its order"


def _of(rows: list[tuple], query: str) -> list[tuple]:
    return [row for row in rows if row[0] == query]
