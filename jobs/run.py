"""Builds the pairs, scores them and publishes the ranking, one after the other: `mkdm run`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

from cluster.connect import is_connect
from cluster.session import ClusterConfig, StepSessions, gives_whole_executors
from jobs.build_pairs import run as run_build
from jobs.engine import RunReport, run_job, say
from jobs.funnel import BuildPairsConfig, FunnelReport
from jobs.rank import RankConfig, RankReport, run_rescoring
from jobs.rank import run as run_rank
from jobs.score import ScoreConfig
from jobs.score import run as run_score
from mkdm.config import parse_config
from mkdm.errors import ConfigError
from udfs.model import pinned_models

BUILD_STEP, SCORE_STEP, RESCORE_STEP, RANK_STEP = "build-pairs", "score", "rescore", "rank"
_GIVEN = {
    BUILD_STEP: ("tokenizer", "warehouse"),
    SCORE_STEP: ("model", "warehouse", "run_id"),
    RANK_STEP: ("warehouse", "run_id"),
}


@dataclass(frozen=True)
class RunConfig:
    """Build the pairs of queries and documents, score them and publish the ranking; only what changed is done again."""

    model: str
    """Folder of the model that scores, or whatever `mkdm score` takes; its tokenizer measures the passages."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    settings: str | None = None
    """YAML file with the sections build-pairs, score and rank, each with settings of that command by their names."""
    rescore: str | None = None
    """Teacher that scores the best passages of each query anew, as of mkdm rank; more of it: section rank."""
    rescore_top: int | None = None
    """Passages of a query that the teacher reads; default: as mkdm rank."""


def run(spark: SparkSession, config: RunConfig) -> Iterator[FunnelReport | RunReport | RankReport]:
    """Do the three steps, and with a teacher its own; each one's report comes as soon as it is done.

    Each step finds out for itself what is left to do, so that the same call again goes on with the step that failed.
    Scoring is incremental: of the model's last complete run it keeps the scores of all pairs that are still the same.
    All steps have this session, whose tasks cannot be given another size: which step that suits less is said.

    Raises:
        ConfigError: the settings are no settings of those commands; raised before the first step.
        MkdmError: what the steps raise.
    """
    _configs(config)
    _say_shape(spark)
    yield from _steps(lambda step, whole_executor: spark, config)


def _steps(
    session: Callable[[str, bool], SparkSession], config: RunConfig
) -> Iterator[FunnelReport | RunReport | RankReport]:
    model, _ = pinned_models(config.model)  # an alias may move meanwhile
    build, score, rank = _configs(replace(config, model=model))
    yield run_build(session(BUILD_STEP, False), build)
    scored = run_score(session(SCORE_STEP, True), score)
    yield scored
    rank = replace(rank, run_id=scored.run.run_id)
    if rank.rescore:
        yield run_rescoring(session(RESCORE_STEP, True), rank)
    yield run_rank(session(RANK_STEP, False), rank)


def _say_shape(spark: SparkSession) -> None:
    whole = gives_whole_executors(spark)
    if whole is None and not is_connect(spark):
        return  # an executor has one core
    if whole:
        text = "all cores of an executor: build-pairs and rank alone would have a task per core"
    elif whole is False:
        text = "a part of an executor's cores: scoring alone would load one model per executor"
    else:
        text = "cores that it does not tell: build-pairs and rank want one each, scoring all of an executor"
    say(f"the tasks of this session keep their size in all three steps, {text}")


def _configs(config: RunConfig) -> tuple[BuildPairsConfig, ScoreConfig, RankConfig]:
    sections = _sections(config.settings)
    warehouse = {"warehouse": config.warehouse}
    first = config.model.split(",")[0]
    build = _parsed(BUILD_STEP, BuildPairsConfig, {"tokenizer": first, **warehouse}, sections)
    moved = {"pairs": build.pairs, "runs": build.runs, "incremental": True}
    score = _parsed(SCORE_STEP, ScoreConfig, {"model": config.model, **warehouse}, {SCORE_STEP: moved}, sections)
    same = ("scores", "runs", "pairs", "rejected_pairs")
    moved = {name: getattr(score, name) for name in same}
    given = {name: value for name in ("rescore", "rescore_top") if (value := getattr(config, name)) is not None}
    return build, score, _parsed(RANK_STEP, RankConfig, warehouse, {RANK_STEP: moved}, sections, {RANK_STEP: given})


def _sections(settings: str | None) -> dict[str, dict[str, Any]]:
    if settings is None:
        return {}
    try:
        found = yaml.safe_load(Path(settings).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read --settings {settings}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not all(isinstance(section, dict) for section in found.values()):
        raise ConfigError(f"{settings} must have sections with settings, such as score: {{chunks: 8}}")
    for name, section in found.items():
        if name not in _GIVEN:
            raise ConfigError(f"{settings} has the section {name!r}; the sections are {', '.join(_GIVEN)}")
        ours = [key for key in section if str(key).replace("-", "_") in _GIVEN[name]]
        if ours:
            raise ConfigError(f"{settings} sets {ours[0]} for {name}: mkdm run gives it that itself")
    return found


def _parsed(name: str, cls: type, given: dict[str, Any], *sections: dict[str, dict[str, Any]]) -> Any:
    chosen = dict(given)
    for section in sections:
        chosen |= {str(key).replace("-", "_"): value for key, value in section.get(name, {}).items()}
    flags = [f"--{key.replace('_', '-')}={_spelt(value)}" for key, value in chosen.items() if value is not None]
    return parse_config(f"mkdm {name}", flags, cls)[0]


def _spelt(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def main(argv: Sequence[str] | None = None) -> None:
    """Run all from the command line and print each step's report."""
    config, cluster = parse_config("mkdm run", argv, RunConfig, ClusterConfig)
    _configs(config)  # before Spark is started
    sessions = StepSessions(cluster, f"mkdm run {config.warehouse}")

    def session(step: str, whole_executor: bool) -> SparkSession:
        spark = sessions.start(step, whole_executor)
        if sessions.fixed and step == BUILD_STEP:
            _say_shape(spark)
        return spark

    for report in _steps(session, config):
        print(f"{report}\n", flush=True)


if __name__ == "__main__":
    run_job(main)
