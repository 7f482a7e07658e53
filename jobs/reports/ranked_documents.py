"""Measures ranked documents against graded judgments: TREC's files, BEIR folders and stored scores."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine import Warehouse, say
from jobs.reports.score_sources import Model, Source, StoredRun
from jobs.reports.trec_files import read_beir, read_lines, write_run
from mkdm.columns import CONTENT_HASH, DOC_ID, ERROR_CODE, PAIR_KEY, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID, RUN_ID, SCORE
from mkdm.errors import ConfigError, InputError
from udfs.pages import number
from udfs.quality import (
    ALL,
    Evaluation,
    Figure,
    Group,
    Qrels,
    RankingMetric,
    TrecRun,
    mean_intervals,
    measure_ranking,
    ranking,
    read_qrels,
    read_run,
)

TREC_RUN = "trec_run"
"""The scorer of a run's file."""
OF_GOLDEN_LABELS = (
    *("golden_labels", "golden_labels_version", "golden_labels_columns"),
    *("pairs", "pairs_version", "columns", "by"),
)
"""Flags of an evaluation that say nothing of judged documents."""


@dataclass(frozen=True, kw_only=True)
class RankedDocumentsFlags:
    """Judgments of documents, and what ranks them."""

    qrels: str | None = None
    """Graded judgments of documents, instead of golden labels: a file of TREC qrels, or of BEIR's with its header."""
    beir: str | None = None
    """BEIR folder: corpus.jsonl and queries.jsonl, which --model scores, and qrels/<split>.tsv, unless --qrels."""
    beir_split: str = "test"
    """Which qrels of the BEIR folder."""
    trec_run: str | None = None
    """TREC run to measure against the judgments. With --model, its documents are what is scored anew; without, those
    judged are."""
    metrics: str = "ndcg@10,mrr@10,map,recall@100"
    """Metrics of ranked documents, joined by commas: ndcg, mrr, map and recall, with @k for the first k."""

    def judged(self) -> bool:
        """Whether documents are measured, and not golden labels."""
        return self.qrels is not None or self.beir is not None

    def metrics_chosen(self) -> list[RankingMetric]:
        """The metrics, each once.

        Raises:
            ConfigError: there is none of a name.
        """
        return [RankingMetric.of(name.strip()) for name in dict.fromkeys(self.metrics.split(","))]


@dataclass(frozen=True)
class RankedDocuments:
    """What judgments say of ranked documents. Its `str` is what the command prints.

    Attributes:
        evaluation: a group per scorer, each named `all`.
        runs: by scorer that is no file, the scores of its documents.
        versions: of the inputs, as they were read.
        about: what was evaluated, by name.
        sources: by scorer, a run's file among them.
    """

    evaluation: Evaluation
    runs: dict[str, TrecRun]
    versions: dict[str, str]
    about: dict[str, str]
    metrics: tuple[str, ...]
    sources: dict[str, Source]
    evaluation_id: str = ""
    table: str = ""

    def __str__(self) -> str:
        lines = [f"{'scorer':<10} {'queries':>8}  " + "".join(f"{metric:<18}" for metric in self.metrics).rstrip()]
        for group in self.evaluation.groups:
            scorer = group.figures[0].scorer
            cells = "".join(f"{_cell(figure):<18}" for figure in group.figures)
            lines.append(f"{scorer:<10} {group.queries:>8,}  {cells}".rstrip())
        note = "Beside each figure its 95 % interval over queries."
        rows = [*self.about.items(), ("evaluations", self.table)]
        return "\n".join([*lines, note, "", *(f"{name:<30}{value}" for name, value in rows)])

    def write(self, folder: Path) -> "RankedDocuments":
        """Write evaluation.json, and <scorer>.trec of each scorer that is no file.

        Returns:
            Itself, and in `about` where the runs are.

        Raises:
            InputError: an id has white space, which a TREC run cannot hold.
        """
        files = {scorer: folder / f"{scorer}.trec" for scorer in self.runs}
        for scorer, file in files.items():
            write_run(file, self.runs[scorer], f"mkdm-{scorer}")
        told = replace(self, about=self.about | {f"run of {scorer}": str(file) for scorer, file in files.items()})
        plain = {"evaluation_id": told.evaluation_id, "about": told.about, **told.evaluation.plain()}
        text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        return told


def _cell(figure: Figure) -> str:
    low, high = (number(value).removeprefix("0") for value in (figure.low, figure.high))
    return f"{number(figure.value)} {low}–{high}"


def measure_documents(
    warehouse: Warehouse, flags: RankedDocumentsFlags, sources: Mapping[str, Source], resamples: int, seed: int
) -> RankedDocuments:
    """Read the judgments, rank documents by each source and measure them.

    Args:
        warehouse: where the passages and queries of a stored run are, which lead to documents and queries as they came.
        sources: by scorer; may be empty where there is a run's file.

    Raises:
        InputError: a file cannot be read or a line of it is at fault, or no judged query has a document.
        ModelError: a model cannot be loaded.
    """
    spark, metrics = warehouse.spark, flags.metrics_chosen()
    judgments = flags.qrels or f"{str(flags.beir).rstrip('/')}/qrels/{flags.beir_split}.tsv"
    lines, version = read_lines(spark, judgments)
    qrels, versions = read_qrels(lines, judgments), {"qrels": version}
    about = {"judgments": f"{judgments}: {sum(map(len, qrels.values())):,} of {len(qrels):,} queries"}
    named, ranked, runs = dict(sources), {}, {}
    if flags.trec_run is not None:
        lines, versions[TREC_RUN] = read_lines(spark, flags.trec_run)
        ranked[TREC_RUN] = read_run(lines, flags.trec_run)
        named[TREC_RUN] = Source(flags.trec_run, versions[TREC_RUN])
    if any(isinstance(source, Model) for source in sources.values()):
        rows, beir_versions = _pairs_of_beir(warehouse, str(flags.beir), qrels, ranked.get(TREC_RUN), about)
        versions |= beir_versions
    for scorer, source in sources.items():
        if isinstance(source, Model):
            runs[scorer] = _scored(source, scorer, rows, about)
        elif isinstance(source, StoredRun):
            runs[scorer] = _stored(warehouse, source, qrels)
    ranked = runs | ranked
    groups = []
    for scorer, run in ranked.items():
        of = named[scorer]
        order = {query: ranking(run[query]) for query in sorted(run) if query in qrels}
        queries, values = measure_ranking(order, qrels, metrics)
        if not queries:
            raise InputError(f"no query of {of.name} has a judgment in {judgments}: their ids must be the same")
        means, (low, high) = values.mean(axis=0), mean_intervals(values, resamples, seed)
        figures = [
            Figure(scorer, str(metric), *map(float, ends))
            for metric, *ends in zip(metrics, means, low, high, strict=True)
        ]
        relevant = sum(grade > 0 for query in queries for grade in qrels[query].values())
        pairs = sum(len(order[query]) for query in queries)
        groups.append(Group(ALL, pairs, len(queries), relevant, tuple(figures)))
        about[scorer] = of.name
        about[f"version of {scorer}"] = of.version
        about[f"not measured of {scorer}"] = (
            f"{len(qrels) - len(queries):,} judged queries without a document, "
            f"{len(run) - len(queries):,} queries without a judgment"
        )
    barren = sum(all(grade <= 0 for grade in grades.values()) for grades in qrels.values())
    about["without a relevant document"] = f"{barren:,} judged queries, which count as 0"
    evaluation = Evaluation(tuple(groups), (), {}, {})
    return RankedDocuments(evaluation, runs, versions, about, tuple(map(str, metrics)), named)


def _pairs_of_beir(
    warehouse: Warehouse, folder: str, qrels: Qrels, candidates: TrecRun | None, about: dict[str, str]
) -> tuple[DataFrame, dict[str, str]]:
    """The pairs to score, with texts and content_hash: the candidates of judged queries, or what is judged."""
    queries, documents, versions = read_beir(warehouse.spark, folder)
    chosen: Mapping[str, Mapping[str, float]] = qrels if candidates is None else candidates
    wanted = [(query, document) for query in chosen if query in qrels for document in chosen[query]]
    if not wanted:
        raise InputError("no query of --trec-run has a judgment: their ids must be the same")
    keys = warehouse.spark.createDataFrame(pd.DataFrame(wanted, columns=list(PAIR_KEY)))
    pairs = keys.join(queries, QUERY_ID).join(documents, PASSAGE_ID)
    pairs = pairs.withColumn(CONTENT_HASH, F.xxhash64(QUERY, PASSAGE))
    count, distinct = pairs.agg(F.count("*"), F.count_distinct(*PAIR_KEY)).collect()[0]
    if count != distinct:
        raise InputError(f"an _id of {folder}/corpus.jsonl or queries.jsonl is there twice: leave one row of each")
    if not count:
        raise InputError(f"{folder} has the texts of none of {len(wanted):,} pairs: their ids must be the same")
    about["pairs without a text"] = f"{len(wanted) - count:,} of {len(wanted):,}"
    return pairs, versions


def _scored(source: Model, scorer: str, pairs: DataFrame, about: dict[str, str]) -> TrecRun:
    found = source.scores(pairs, pairs.count())
    codes = found[ERROR_CODE].value_counts().sort_index()
    reasons = ", ".join(f"{count:,} {code}" for code, count in codes.items())
    about[f"no score from {scorer}"] = f"{int(found[SCORE].isna().sum()):,}" + (f" ({reasons})" if reasons else "")
    return _run_of(found.dropna(subset=[SCORE]), PASSAGE_ID)


def _stored(warehouse: Warehouse, source: StoredRun, qrels: Qrels) -> TrecRun:
    """Of each judged query the score of a document, that of its best passage; ids as they came into a build.

    A passage that is none of `passages` is a document of its own, and a query that is none of `query_map` itself.
    """
    rows = source.table.read().where(F.col(RUN_ID).isin(list(source.chain))).select(*PAIR_KEY, SCORE)
    passages, query_map = warehouse.table("passages"), warehouse.table("query_map")
    rows = rows.withColumn(DOC_ID, F.col(PASSAGE_ID))
    if query_map.exists():
        raw = query_map.read().select("raw_query_id", QUERY_ID)
        rows = rows.join(raw, QUERY_ID, "left").withColumn(QUERY_ID, F.coalesce("raw_query_id", QUERY_ID))
    judged = warehouse.spark.createDataFrame(pd.DataFrame({QUERY_ID: list(qrels)}))
    rows = rows.join(judged, QUERY_ID, "left_semi")
    if passages.exists():
        of = passages.read().select(PASSAGE_ID, F.col(DOC_ID).alias("_document"))
        rows = rows.join(of, PASSAGE_ID, "left").withColumn(DOC_ID, F.coalesce("_document", PASSAGE_ID))
    best = rows.groupBy(QUERY_ID, DOC_ID).agg(F.max(SCORE).alias(SCORE))
    say("taking of each document the score of its best passage")
    return _run_of(best.toArrow().to_pandas(), DOC_ID)


def _run_of(frame: pd.DataFrame, document: str) -> TrecRun:
    run: TrecRun = {}
    for query, name, score in zip(frame[QUERY_ID], frame[document], frame[SCORE], strict=True):
        run.setdefault(query, {})[name] = float(score)
    return run


def require_ranking(config: Any) -> None:
    """Make sure that the flags of an evaluation go together, and that there is something to rank documents by.

    Args:
        config: of `mkdm evaluate`: these flags and its own.

    Raises:
        ConfigError: they do not; says which.
    """
    config.metrics_chosen()
    if not config.judged():
        if config.trec_run is not None:
            raise ConfigError("--trec-run needs judgments: give --qrels FILE or --beir FOLDER")
        return
    useless = [name for name in OF_GOLDEN_LABELS if getattr(config, name) is not None]
    if useless:
        raise ConfigError(f"--{useless[0].replace('_', '-')} is of golden labels: leave it out, or --qrels and --beir")
    scorers = [one for one in (config.model, config.run_id) if one is not None]
    if len(scorers) > 1:
        raise ConfigError("give --model to score now, or --run-id for stored scores: one of the two")
    if not scorers and (config.against is not None or config.against_run_id is not None):
        raise ConfigError("--against and --against-run-id need --model or --run-id to be held against")
    if not scorers and config.trec_run is None:
        raise ConfigError("--qrels and --beir need a ranking: give --trec-run, --run-id, or --model with --beir")
    if (config.model is not None or config.against is not None) and config.beir is None:
        raise ConfigError("a model needs the texts of the documents: give --beir FOLDER, or score pairs and --run-id")
