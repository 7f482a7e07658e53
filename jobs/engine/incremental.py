"""Incremental runs: which run one adds to, which keys changed since, and what of earlier runs must then go.

The promise: the rows of a chain of runs are those that one run over all pairs of the newest version would write. So a
key that was touched is decided anew, from all rows that it has now, and all that the chain wrote for it goes.
"""

import math
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine.blocks import keys_of
from jobs.engine.buckets import DOCUMENT
from jobs.engine.chunked_run import say
from jobs.engine.faults import FOREIGN, FOREIGN_OR_INPUT
from jobs.engine.ledger import BASE_RUN, COMPLETE, REPLACING, Identity, Ledger, Run, RunState
from jobs.engine.limits import released, stored
from jobs.engine.pairs import as_written, check_pairs
from jobs.engine.pinned_pairs import PASSAGES, PinnedPairs
from jobs.engine.place import literal
from jobs.engine.table import Table
from mkdm.columns import CONTENT_HASH, PAIR_KEY, PASSAGE, PASSAGE_ID, QUERY, RUN_ID
from mkdm.errors import InputError, RunFailedError

SINCE = "pairs_since"
_SIGN = {"insert": 1, "update_postimage": 1, "delete": -1, "update_preimage": -1}
_OTHER_COLUMNS = ("DELTA_CHANGE_DATA_FEED_INCOMPATIBLE", "PARQUET_COLUMN_DATA_TYPE_MISMATCH")
"""Error classes of a feed over versions whose columns had other names or types."""
_GAPS = ("FILE_NOT_EXIST", "[DELTA_")
"""Error classes that reach Python as the JVM's own, of a feed whose files or log are there no more."""
MOST_DOCUMENTS, MOST_RANGES = 20_000, 32
"""Documents that changed, up to which it is told where their scores lie; and in how many ranges of passage_id: of some
70 the filter of a log's files grows beyond what Java takes as one method."""


@dataclass(frozen=True)
class Changes:
    """What an incremental run has to do.

    Attributes:
        rows: query_id, passage_id, query, passage: all rows that the touched keys have now.
        gone: query_id, passage_id of the touched keys that have none.
        touched: the keys of both, each once, stored until `release`.
    """

    rows: DataFrame
    gone: DataFrame
    touched: DataFrame

    @classmethod
    def of(cls, pairs: PinnedPairs, touched: DataFrame) -> "Changes":
        """The changes of those keys."""
        rows = _with_keys(pairs.rows, touched, "left_semi")
        return cls(rows, _with_keys(touched, rows, "left_anti"), touched)

    def release(self) -> None:
        """Drop what is stored of them."""
        released(self.touched)


def base_of(ledger: Ledger, identity: Identity, pairs: PinnedPairs) -> RunState | None:
    """The complete run of the same model, settings and table that has read its newest version up to the pinned one.

    A run whose rows another one has begun to replace is no base any more, except for that one.
    """
    pinned = pairs.delta_version
    table_id, _, _ = pairs.version.partition("@")
    found: tuple[int, RunState] | None = None
    for state in ledger.states(job=identity.job, model_version=identity.model_version):
        read_id, _, version = state.run.input_versions["pairs"].partition("@")
        fits = state.state == COMPLETE and state.identity.settings == identity.settings and read_id == table_id
        if not fits or int(version) > pinned or (found and int(version) < found[0]):
            continue
        own = since(identity, state).fingerprint
        others = ledger.replaced_by(state.run.run_id)
        if all(other["fingerprint"] == own and not ledger.replaced_by(other["run_id"]) for other in others):
            found = int(version), state
    return found[1] if found else None


def since(identity: Identity, base: RunState) -> Identity:
    """The identity of the run that adds to `base` what changed since."""
    versions = {**identity.input_versions, SINCE: base.run.input_versions["pairs"], BASE_RUN: base.run.run_id}
    return replace(identity, input_versions=versions)


def has_read(base: RunState, identity: Identity) -> bool:
    """Whether the base run has read these very inputs."""
    return all(base.run.input_versions.get(name) == version for name, version in identity.input_versions.items())


def changes_since(pairs: PinnedPairs, base: RunState, ledger: Ledger, scores: Table, rejects: Table) -> Changes:
    """What changed since the base run read the pairs. Nothing is written.

    The change feed tells which keys were touched: copies that came are set against copies that went, so that a row that
    was taken out and put back as it was counts for nothing. Where columns have other types since, or the chain of the
    base run has not a row for each pair, all pairs are compared with what the chain wrote.

    Args:
        scores, rejects: the tables that the base run wrote.

    Raises:
        InputError: the feed was off for a part of the time, or vacuumed.
    """
    written = _written(scores, rejects, chain_of(ledger, base.run.run_id))
    touched = _told_by_feeds(pairs, base)
    if touched is not None:
        changes = Changes.of(pairs, touched)
        if _whole(pairs, changes, written):
            return changes
        changes.release()
    say(f"comparing all pairs with what run {base.run.run_id}, and those that it adds to, wrote for them")
    return Changes.of(pairs, stored(_told_by_results(pairs, written)))


def _told_by_feeds(pairs: PinnedPairs, base: RunState) -> DataFrame | None:
    """The keys that changed, each once, stored; None where the feeds of the tables cannot tell.

    Raises:
        InputError: the feed of the pairs has a gap.
    """
    known = base.run.input_versions
    texts = None  # of passages, where the pairs have none: by passage_id, those that came, left or changed
    try:
        if pairs.passages is not None:
            changes = _feed(pairs.passages[0], known.get(PASSAGES, ""), pairs.passages[1])
            texts = _net(changes.withColumn(CONTENT_HASH, F.xxhash64(PASSAGE)), PASSAGE_ID)
            texts.count()  # its gaps show here
    except FOREIGN_OR_INPUT:
        return None
    try:
        changes = _feed(pairs.table, known["pairs"], pairs.version)
        if PASSAGE not in changes.columns:
            changes = changes.withColumn(PASSAGE, F.lit(None).cast("string"))
        changes = check_pairs(changes, pairs.table.location, keep=("sign",))
        touched = _net(changes.withColumn(CONTENT_HASH, F.xxhash64(QUERY, PASSAGE)), *PAIR_KEY)
        if texts is not None:
            touched = touched.union(pairs.rows.join(texts, PASSAGE_ID, "left_semi").select(*PAIR_KEY)).distinct()
        touched = stored(touched)
        touched.count()  # the feed's gaps show here
    except FOREIGN as error:
        if any(name in str(error) for name in _OTHER_COLUMNS):
            return None
        if not isinstance(error, AnalysisException) and not any(name in str(error) for name in _GAPS):
            raise
        first, last = int(known["pairs"].partition("@")[2]) + 1, pairs.delta_version
        raise InputError(
            f"{pairs.table.location} does not tell what changed from version {first} to {last}: its change feed was "
            f"off for a part of them, or VACUUM removed it. ALTER TABLE … SET TBLPROPERTIES "
            f"(delta.enableChangeDataFeed = true), then run once without --incremental"
        ) from error
    return touched


def _feed(table: Table, known: str, pinned: str) -> DataFrame:
    """The rows that came, with `sign` 1, and that went, with -1, between two pinned versions.

    Raises:
        InputError: they are versions of two tables.
    """
    (known_id, _, first), (table_id, _, last) = known.partition("@"), pinned.partition("@")
    if known_id != table_id:
        raise InputError(f"{table.location} is another table than the one that was read before")
    if first == last:
        return table.read(int(last)).limit(0).withColumn("sign", F.lit(0))
    sign = F.create_map(*(F.lit(part) for pair in _SIGN.items() for part in pair))[F.col("_change_type")]
    changes = as_written(table.changes(int(first) + 1, int(last)), table.read(int(last)))
    return changes.withColumn("sign", sign)


def _net(changes: DataFrame, *keys: str) -> DataFrame:
    """The keys, each once, of which there are more rows now than before, or less, with some content_hash."""
    copies = changes.groupBy(*keys, CONTENT_HASH).agg(F.sum("sign").alias("net"))
    return copies.where("net != 0").select(*keys).distinct()


def _written(scores: Table, rejects: Table, chain: list[str]) -> DataFrame:
    """What the chain wrote: query_id, passage_id, and content_hash, which is null for rejects."""
    mine = F.col(RUN_ID).isin(chain)
    scored = scores.read().where(mine).select(*PAIR_KEY, CONTENT_HASH)
    return scored.union(rejects.read().where(mine).select(*PAIR_KEY, F.lit(None).cast("long")))


def _whole(pairs: PinnedPairs, changes: Changes, written: DataFrame) -> bool:
    """Whether each pair that was not touched has a row in what the chain wrote, by number."""
    replaced = _with_keys(near(written, changes.touched), changes.touched, "left_semi").count()
    return pairs.rows_there - changes.rows.count() == written.count() - replaced


def _told_by_results(pairs: PinnedPairs, written: DataFrame) -> DataFrame:
    """The keys of which not just one row is there now, with the one text that the chain has a score for."""
    now = pairs.rows.select(*PAIR_KEY, F.xxhash64(QUERY, PASSAGE).alias(CONTENT_HASH), F.lit(1).alias("sign"))
    both = now.union(written.withColumn("sign", F.lit(-1)))
    counted = both.groupBy(*PAIR_KEY).agg(
        F.count("*").alias("rows"),
        F.sum("sign").alias("net"),
        F.count(CONTENT_HASH).alias("hashes"),
        F.count_distinct(CONTENT_HASH).alias("texts"),
    )
    return counted.where("NOT (rows = 2 AND net = 0 AND hashes = 2 AND texts = 1)").select(*PAIR_KEY)


def _with_keys(rows: DataFrame, keys: DataFrame, how: str) -> DataFrame:
    """The rows with one of the keys (left_semi), or with none of them (left_anti); a null is equal to a null."""
    keys = keys.select(*(F.col(name).alias(f"_{name}") for name in PAIR_KEY))
    return rows.join(keys, reduce(and_, (F.col(name).eqNullSafe(F.col(f"_{name}")) for name in PAIR_KEY)), how)


def chain_of(ledger: Ledger, run_id: str) -> list[str]:
    """The runs whose rows together are the scores of a run: itself, the run it adds to, and so on."""
    chain = [run_id]
    while True:
        state = RunState.of(ledger.rows(run_id=chain[-1]))
        base = state.run.input_versions.get(BASE_RUN) if state else None
        if base is None:
            return chain
        chain.append(base)


def begin_to_replace(ledger: Ledger, run: Run) -> None:
    """Record that this run begins to take out rows of the run that it adds to, which is then no base for any other.

    Raises:
        RunFailedError: another run has begun to, meanwhile.
    """
    ledger.record(run, REPLACING)
    base = run.input_versions[BASE_RUN]
    others = [one["run_id"] for one in ledger.replaced_by(base) if one["fingerprint"] != run.fingerprint]
    if others:
        raise RunFailedError(f"run {others[0]} has begun to replace rows of run {base} too: start this one again")


def take_out(table: Table, laid_out: DataFrame, chain: list[str]) -> None:
    """Delete the rows that earlier runs of the chain wrote for keys that changed or left. A repeat finds none.

    One scan of the key columns of the files that may hold such keys; files without any stay as they are.
    """
    if table.read().where(F.col(RUN_ID).isin(chain)).isEmpty():
        return
    keys = keys_of(laid_out).distinct()
    same = " AND ".join(f"old.{name} <=> changed.{name}" for name in PAIR_KEY)
    runs = ", ".join(map(literal, chain))
    places = places_of(keys)
    lies = "" if places is None else f" AND {lies_in(places, f'old.{PASSAGE_ID}')}"
    table.merge(keys, "changed", f"{same} AND old.run_id IN ({runs}){lies}", "WHEN MATCHED THEN DELETE")


def places_of(keys: DataFrame) -> list[tuple[str, str]] | None:
    """Ranges of passage_id, first and last, in which the passages of these keys lie: of a document, or of several.

    Scores lie by passage, so that by them the files that may hold the keys are told from all others.

    Returns:
        MOST_RANGES at most; None where a passage is null, or there are more documents than are worth a look.
    """
    document = F.expr(DOCUMENT)
    found = keys.groupBy(document).agg(F.min(PASSAGE_ID).alias("first"), F.max(PASSAGE_ID).alias("last"))
    rows = found.limit(MOST_DOCUMENTS + 1).collect()
    if len(rows) > MOST_DOCUMENTS or any(row["first"] is None for row in rows):
        return None
    ranges = sorted((row["first"], row["last"]) for row in rows)
    each = max(1, math.ceil(len(ranges) / MOST_RANGES))
    together = [ranges[at : at + each] for at in range(0, len(ranges), each)]
    return [(some[0][0], max(last for _, last in some)) for some in together]


def near(rows: DataFrame, keys: DataFrame) -> DataFrame:
    """The rows that lie where some keys may; told by statistics of files too."""
    places = places_of(keys)
    return rows if places is None else rows.where(lies_in(places, PASSAGE_ID))


def lies_in(places: list[tuple[str, str]], passage: str) -> str:
    """Whether a passage lies in one of the ranges, as SQL."""
    ranges = [f"{passage} BETWEEN {literal(first)} AND {literal(last)}" for first, last in places]
    return f"({' OR '.join(ranges)})" if ranges else "false"
