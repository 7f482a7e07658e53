"""The three steps of a build: queries, passages, pairs. Each ends in tables that hold what it made and nothing else."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import task_slots
from jobs.engine import (
    PASSAGES_AT,
    Ledger,
    Run,
    Table,
    Warehouse,
    in_bucket_order,
    newest_build,
    released,
    small_batches,
    staging,
    stored,
)
from jobs.funnel import prefilter, selection
from jobs.funnel.counts import StepCounts
from jobs.funnel.inputs import DOCUMENTS, QUERIES, QUERY_DOCUMENTS, FunnelInput, rejected_inputs
from jobs.funnel.near_duplicates import near_duplicates
from jobs.funnel.passages import (
    CUT_HASH,
    DOCUMENTS_SHARING,
    DUPLICATE_OF,
    HAS_HTML,
    coded_documents,
    cut,
    exact_duplicates,
    uncut,
    with_duplicates,
)
from jobs.funnel.queries import BODY, HEAD, RAW_QUERY_ID, TAIL, UNSEGMENTED, merged, normalised, with_segments
from mkdm.columns import (
    DOC_ID,
    ERROR_CODE,
    ERROR_MESSAGE,
    FREQUENCY,
    ORDINAL,
    PAIR_KEY,
    PASSAGE,
    PASSAGE_ID,
    QUERY,
    QUERY_ID,
    SEGMENT,
)
from mkdm.errors import RejectRateError, RunFailedError
from udfs.passages import CutSettings

if TYPE_CHECKING:
    from jobs.funnel.config import BuildPairsConfig


PASSAGES_PER_FILE = 250_000
"""Some 100 MB."""
DOCUMENTS_PER_BATCH = 64
"""Documents that a Python worker holds at once: some are of megabytes."""
BLOCK_BYTES = 4 * 2**20
"""Of blocks that a Python worker holds at once, one block at least; their scores are a few times that."""


@dataclass(frozen=True)
class Build:
    """All that the steps of one build need.

    Attributes:
        inputs: queries, documents and query_documents at their pinned versions, by name.
        tables: the tables that it writes, by name.
        ledger: the runs, of which this one must be the newest build.
    """

    spark: SparkSession
    warehouse: Warehouse
    config: "BuildPairsConfig"
    run: Run
    inputs: dict[str, FunnelInput]
    tables: dict[str, Table]
    ledger: Ledger
    settings: CutSettings

    def reject(self, coded: DataFrame, name: str, counts: StepCounts, part: str = "") -> None:
        """Store the rows at fault, and stop if there are too many, or if they are not those that were pinned.

        Args:
            coded: rows of one input, with error_code and error_message.
            part: what tells several such calls for one input apart.

        Raises:
            InputError: a file of the input changed while it was read.
            RejectRateError: more than --max-reject-rate of the rows that the step has read.
        """
        self.inputs[name].require_unchanged()  # all of it was read
        if not counts.rejected:
            return
        rows = rejected_inputs(coded, name, self.run)
        self.tables["rejected_inputs"].append(rows.coalesce(1), self.run.transaction(f"rejects/{name}{part}"))
        if counts.rejected > self.config.max_reject_rate * counts.read:
            reasons = ", ".join(f"{n:,} {what}" for what, n in counts.rows.items() if what.startswith("rejected"))
            raise RejectRateError(
                f"{counts.rejected / counts.read:.1%} of the rows of {self.inputs[name].table.location} were rejected "
                f"({reasons}), more than --max-reject-rate {self.config.max_reject_rate:.1%}: see "
                f"{self.tables['rejected_inputs'].location} where run_id = {self.run.run_id}"
            )

    def require_newest(self) -> None:
        """Make sure that the tables are this build's to change.

        Raises:
            RunFailedError: another build has begun since.
        """
        newest = newest_build(self.ledger, self.run.job)
        if newest is None or newest.run.run_id != self.run.run_id:
            raise RunFailedError(
                f"another build, {newest.run.run_id if newest else 'none'}, has begun since: it decides now what "
                f"{self.warehouse.root} holds"
            )

    def become(self, name: str, rows: DataFrame, keys: tuple[str, ...], expected: int, counts: StepCounts) -> None:
        """Make a table hold those rows, and check that it does.

        Raises:
            RunFailedError: it has not as many rows as expected, or another build has begun since.
        """
        self.require_newest()
        table = self.tables[name]
        counts.enter(table.become(rows, keys, self.run.transaction(name)), name)
        there = table.read().count()
        if there != expected:
            raise RunFailedError(f"{table.location} has {there:,} rows, not the {expected:,} that were made for it")


def build_queries(build: Build) -> StepCounts:
    """Normalise and merge the queries, and tell head, body and tail: `normalised_queries` and `query_map`."""
    counts = StepCounts(QUERIES)
    coded = stored(normalised(build.inputs[QUERIES].rows, build.config.max_query_characters))
    try:
        fit = counts.count_codes(coded, QUERIES)
        build.reject(coded, QUERIES, counts)
        unknown = coded.where(F.col(ERROR_CODE).isNull() & F.col(FREQUENCY).isNull()).count()
        if FREQUENCY in build.inputs[QUERIES].rows.columns:
            counts.rows["without a frequency"] = unknown
        together = stored(merged(coded))
        queries = with_segments(together, build.config.head_share, build.config.body_share)
        queries = stored(queries)
        sizes = {row[SEGMENT]: row["count"] for row in queries.groupBy(SEGMENT).count().collect()}
        made = sum(sizes.values())
        counts.rows["merged into another query"] = fit - made
        counts.rows |= {
            f"segment {segment}": sizes[segment] for segment in (HEAD, BODY, TAIL, UNSEGMENTED) if segment in sizes
        }
        columns = (QUERY_ID, QUERY, FREQUENCY, SEGMENT)
        build.become("normalised_queries", queries.select(*columns), (QUERY_ID,), made, counts)
        raw = queries.select(F.explode("raw_query_ids").alias(RAW_QUERY_ID), QUERY_ID)
        build.become("query_map", raw, (RAW_QUERY_ID,), fit, counts)
        released(queries)
        released(together)
    finally:
        released(coded)
    return counts


def build_passages(build: Build) -> StepCounts:
    """Cut the documents that are new or changed, find duplicates: `passages`.

    Passages that left stay there until no pair has them any more, the next step sees to that. They lose their cut_hash:
    a document that comes back as it was is not to be taken for one whose passages are all there.
    """
    counts, config, table = StepCounts(DOCUMENTS), build.config, build.tables["passages"]
    staged = staging(build.warehouse, build.run, "passages")
    with small_batches(build.spark, DOCUMENTS_PER_BATCH):
        coded = stored(
            coded_documents(build.inputs[DOCUMENTS].rows, config.html, build.settings, config.max_document_characters)
        )
        try:
            fit = counts.count_codes(coded, DOCUMENTS)
            build.reject(coded, DOCUMENTS, counts)
            counts.rows["with HTML tags"] = coded.where(F.col(ERROR_CODE).isNull() & F.col(HAS_HTML)).count()
            existing = table.read(table.latest_version())
            staged.append(cut(coded, existing, build.settings), build.run.transaction("cut"))
        finally:
            released(coded)
    passages = staged.read().where(F.col(ERROR_MESSAGE).isNull())
    failed = uncut(staged.read())
    per_document = F.count_distinct(F.when(F.col("cut_now"), F.col(DOC_ID)))
    found = passages.agg(F.count("*"), F.count_distinct(DOC_ID), per_document).collect()[0]
    number, documents, cut_now = (int(value) for value in found)
    uncuttable = failed.count()
    if uncuttable:
        counts.rejected += uncuttable
        counts.rows["rejected: cutter_error"] = uncuttable
        build.reject(failed, DOCUMENTS, counts, "/uncut")
    if documents + uncuttable != fit:
        raise RunFailedError(f"{fit:,} documents were to be cut, {documents:,} were and {uncuttable:,} could not be")
    counts.rows |= {"cut now": cut_now, "cut before and unchanged": documents - cut_now, "passages": number}
    exact = exact_duplicates(passages)
    near = None
    if config.near_duplicates is not None:
        copies = exact.where(F.col(DUPLICATE_OF).isNotNull()).select(PASSAGE_ID)
        near = near_duplicates(passages.join(copies, PASSAGE_ID, "left_anti"), config.near_duplicates)
    made = with_duplicates(passages.select(PASSAGE_ID, DOC_ID, ORDINAL, PASSAGE, CUT_HASH), exact, near)
    made = in_bucket_order(made, max(task_slots(build.spark), math.ceil(number / PASSAGES_PER_FILE)))
    build.require_newest()
    transaction = build.run.transaction("passages")
    counts.enter(table.become(made, (PASSAGE_ID,), transaction, others={CUT_HASH: "NULL"}), "passages")
    told = exact.agg(F.count(DUPLICATE_OF), F.count_if(F.col(DOCUMENTS_SHARING) > 1)).collect()[0]
    counts.rows["exact duplicates"], counts.rows["shared by several documents"] = (int(value) for value in told)
    if near is not None:
        counts.rows["near duplicates"] = near.count()
    if config.boilerplate_documents is not None:
        shared = exact.where(F.col(DOCUMENTS_SHARING) >= config.boilerplate_documents)
        counts.rows["boilerplate, left out of the pairs"] = shared.count()
    return counts


def build_pairs(build: Build) -> StepCounts:
    """Choose documents and passages for each query that is taken: `pairs`."""
    counts, config = StepCounts("pairs"), build.config
    cut_now = staging(build.warehouse, build.run, "passages").read().where(F.col(ERROR_MESSAGE).isNull())
    passages = build.tables["passages"].read().join(cut_now.select(PASSAGE_ID), PASSAGE_ID, "left_semi")
    documents = passages.select(DOC_ID).distinct()
    coded = stored(
        selection.coded_query_documents(build.inputs[QUERY_DOCUMENTS].rows, build.tables["query_map"].read(), documents)
    )
    queries = build.tables["normalised_queries"].read().where(F.col(SEGMENT).isin(config.taken_segments()))
    placed = selection.ranked_documents(coded.where(F.col(ERROR_CODE).isNull()), queries, config.documents_per_query)
    placed = stored(placed)
    try:
        fit = counts.count_codes(coded, QUERY_DOCUMENTS)
        build.reject(coded, QUERY_DOCUMENTS, counts)
        of_taken = coded.where(F.col(ERROR_CODE).isNull()).select(F.col("merged_id").alias(QUERY_ID))
        taken = of_taken.join(queries.select(QUERY_ID), QUERY_ID, "left_semi").count()
        number, chosen_number = (int(n) for n in placed.agg(F.count("*"), F.count_if("chosen")).collect()[0])
        counts.rows |= {
            "of queries that are not taken": fit - taken,
            "of another form of the same query": taken - number,
            f"beyond the {config.documents_per_query} documents of a query": number - chosen_number,
            "documents chosen": chosen_number,
        }
        chosen = placed.where("chosen").drop("chosen")
        documents = selection.passages_by_document(passages, False, config.boilerplate_documents)
        sizes = chosen.join(documents, DOC_ID).agg(F.coalesce(F.sum(selection.SIZE), F.lit(0)))
        candidates = int(sizes.collect()[0][0])
        table = build.tables["pairs"]
        with small_batches(build.spark, None, BLOCK_BYTES):
            rows = transform(chosen, passages, config, candidates, task_slots(build.spark))
            if not table.read().isEmpty():  # to be compared with what is there: made once, and read as often as needed
                staged = staging(build.warehouse, build.run, "pairs")
                staged.append(rows, build.run.transaction("staged pairs"))
                rows = staged.read()
            build.require_newest()
            where = config.passages_at(build.tables["passages"])
            if not config.passage_in_pairs and table.properties().get(PASSAGES_AT) != where:
                table.set_properties({PASSAGES_AT: where})
            changes = table.become(rows, PAIR_KEY, build.run.transaction("pairs"))
        made, limits = table.read().count(), config.limits()
        if not limits and made != candidates:
            raise RunFailedError(f"{candidates:,} pairs were to be made, and {table.location} has {made:,}")
        counts.rows["candidate pairs"] = candidates
        if limits:
            counts.rows[f"left out by {' '.join(limits)}"] = candidates - made
        counts.rows |= {"pairs": made, "queries with pairs": table.read().select(QUERY_ID).distinct().count()}
        counts.enter(changes, "pairs")
        left = build.tables["passages"].read().count() - cut_now.count()
        if left < 0:
            raise RunFailedError(f"{-left:,} passages are missing in {build.tables['passages'].location}")
        if left:
            counts.rows["passages that left"] = build.tables["passages"].keep_only(cut_now, (PASSAGE_ID,))
    finally:
        released(placed)
        released(coded)
    return counts


def transform(
    chosen: DataFrame, passages: DataFrame, config: "BuildPairsConfig", candidates: int, slots: int
) -> DataFrame:
    """The pairs of the chosen documents' passages.

    Args:
        chosen: query_id, query, doc_id, place; each query and document once.
        passages: the table of passages.
        candidates: pairs before any limit.
        slots: tasks that run at once.

    Returns:
        query_id, passage_id, query, bucket, and passage with `--passage-in-pairs`; each key once, in order of buckets.
    """
    merge = config.duplicates == "merge"
    passages = selection.represented(passages) if merge else passages
    per_document, per_query = config.passages_per_document, config.passages_per_query
    tasks = selection.tasks_for(candidates, slots)
    if config.prefilter == "none":
        more = [PASSAGE] if config.passage_in_pairs else []
        documents = selection.passages_by_document(passages, merge, config.boilerplate_documents, *more)
        pairs = selection.all_pairs(selection.spread(chosen, documents, tasks), per_document)
    else:
        documents = selection.passages_by_document(passages, merge, config.boilerplate_documents, PASSAGE)
        mean_length = 0.0
        if config.prefilter == prefilter.BM25:
            chosen, mean_length = prefilter.weighed(chosen, passages.where(F.col(DUPLICATE_OF).isNull()))
        blocks = selection.blocks(chosen, documents, tasks)
        # no document has more of a query's best, unless some of them are one passage
        most = min((limit for limit in (per_document, None if merge else per_query) if limit), default=None)
        pairs = prefilter.likely_pairs(blocks, config.prefilter, mean_length, most, config.passage_in_pairs)
    return selection.first_pairs(pairs, config.passage_in_pairs, merge, per_query, tasks)
