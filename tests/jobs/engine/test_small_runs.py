"""Small runs are interpreted, large ones compiled; a session's own settings come back."""

import pytest

from jobs import score
from jobs.engine import chunked_run, interpreted, pairs_job

NAMES = ("spark.sql.codegen.wholeStage", "spark.sql.codegen.factoryMode", "spark.sql.adaptive.enabled")
OWN = ("true", "FALLBACK", "true")


@pytest.fixture
def compiling(spark):
    """The session as it is outside of tests: it compiles its queries."""
    before = [spark.conf.get(name) for name in NAMES]
    for name, value in zip(NAMES, OWN, strict=True):
        spark.conf.set(name, value)
    yield spark
    for name, value in zip(NAMES, before, strict=True):
        spark.conf.set(name, value)


def settings(spark) -> tuple[str, ...]:
    return tuple(spark.conf.get(name) for name in NAMES)


@pytest.mark.classic
def test_a_session_s_settings_come_back(compiling):
    with interpreted(compiling) as compile_queries:
        assert settings(compiling) == ("false", "NO_CODEGEN", "false")
        compile_queries()
        assert settings(compiling) == OWN
    with pytest.raises(ValueError, match="stop"), interpreted(compiling):
        raise ValueError("stop")
    assert settings(compiling) == OWN


@pytest.mark.slow
@pytest.mark.classic
def test_a_run_of_many_rows_is_compiled_to_the_same_scores(compiling, warehouse, student_folder, monkeypatch):
    found, real = [], chunked_run.ChunkedRun._score_chunks

    def told(self, laid_out):
        found.append(settings(self.spark))
        return real(self, laid_out)

    monkeypatch.setattr(chunked_run.ChunkedRun, "_score_chunks", told)
    kept = []
    for most in (300, 299):
        monkeypatch.setattr(pairs_job, "INTERPRETED_ROWS", most)
        config = score.ScoreConfig(
            model=student_folder, warehouse=warehouse.root, scores=f"{warehouse.root}/scores-{most}", run_id=f"r{most}"
        )
        score.run(compiling, config)
        rows = compiling.read.format("delta").load(config.scores).orderBy("query_id", "passage_id").collect()
        kept.append([(row.query_id, row.passage_id, row.score) for row in rows])
    assert found == [("false", "NO_CODEGEN", "false"), OWN]
    assert len(kept[0]) == 300
    assert kept[0] == kept[1]
