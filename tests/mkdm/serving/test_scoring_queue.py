"""The queue before the scorer: what times out leaves it, what fails does not stop it."""

import asyncio

import numpy as np
import pytest

from mkdm.scoring import Scorer
from mkdm.serving.metrics import Metrics
from mkdm.serving.rerank_request import RequestError
from mkdm.serving.scoring_queue import ScoringQueue


@pytest.fixture(scope="module")
def scorer(student_folder) -> Scorer:
    return Scorer.load(student_folder, "torch", "fp32")


def test_what_times_out_leaves_the_queue(scorer, texts):
    async def run() -> None:
        queue = ScoringQueue(scorer, 8, 64, 0.3, Metrics())
        queue.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await queue.score(texts[0][0], texts[1][:6])
        found = await queue.score(texts[0][1], texts[1][:8])  # there is room again
        np.testing.assert_allclose(found.scores, scorer.score([texts[0][1]] * 8, texts[1][:8]), rtol=0, atol=1e-6)
        await queue.stop()
        assert not queue.runs

    asyncio.run(run())


def test_requests_in_one_call_keep_their_own_scores_and_errors(scorer, texts):
    async def run() -> list:
        queue = ScoringQueue(scorer, 100, 10, 0.2, Metrics())
        queue.start()
        calls = [(texts[0][at], texts[1][at : at + at + 1]) for at in range(5)] + [("a " * 300, ["b"])]
        found = await asyncio.gather(*(queue.score(*call) for call in calls))
        await queue.stop()
        return list(zip(calls, found, strict=True))

    *good, (_, bad) = asyncio.run(run())
    for (query, passages), scored in good:
        np.testing.assert_allclose(scored.scores, scorer.score([query] * len(passages), passages), rtol=0, atol=1e-6)
        assert scored.tokens > 0
        assert not scored.errors
    assert bad.errors[0][0] == "query_too_long"


def test_a_call_that_fails_is_told_and_the_next_one_is_scored(scorer, texts, monkeypatch):
    async def run() -> None:
        queue = ScoringQueue(scorer, 100, 64, 0.0, Metrics())
        queue.start()
        with monkeypatch.context() as patched:
            patched.setattr(scorer, "score_window", lambda *texts: (_ for _ in ()).throw(MemoryError("no room")))
            with pytest.raises(MemoryError, match="no room"):
                await queue.score(texts[0][0], texts[1][:2])
        assert len((await queue.score(texts[0][0], texts[1][:2])).scores) == 2
        with pytest.raises(RequestError, match=r"0 pairs wait, 100 may: ask again in 1 s") as refused:
            await queue.score(texts[0][0], texts[1][:101])
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        await queue.stop()

    asyncio.run(run())
