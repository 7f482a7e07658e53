"""What changed in the pairs since an earlier run, from the change feed of their Delta table, and what must then go."""

from dataclasses import replace

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine.ledger import COMPLETE, REPLACING, Identity, Ledger, RunState
from jobs.engine.pairs import PinnedPairs, check_pairs, with_passages
from jobs.engine.place import literal
from jobs.engine.table import Table, despite_conflicts
from mkdm.columns import CONTENT_HASH, ERROR_CODE, PAIR, PAIR_KEY, PASSAGE, QUERY
from mkdm.errors import InputError, RejectCode

BASE_RUN, SINCE = "base_run", "pairs_since"
_SIGN = {"insert": 1, "update_postimage": 1, "delete": -1, "update_preimage": -1}


def base_of(ledger: Ledger, identity: Identity, pairs: PinnedPairs) -> RunState | None:
    """The complete run of the same model, settings and table that has read its newest version up to the pinned one.

    A run whose rows another one has begun to replace is no base any more, except for that one.
    """
    pinned = pairs.delta_version
    table_id, _, _ = pairs.version.partition("@")
    states = ledger.states(job=identity.job, model_version=identity.model_version)
    found: tuple[int, RunState] | None = None
    for state in states:
        read_id, _, version = state.run.input_versions["pairs"].partition("@")
        fits = state.state == COMPLETE and state.run.settings == identity.settings and read_id == table_id
        if not fits or int(version) > pinned or (found and int(version) < found[0]):
            continue
        if all(other == pairs.version for other in replaced_by(ledger, state.run.run_id)):
            found = int(version), state
    return found[1] if found else None


def replaced_by(ledger: Ledger, run_id: str) -> list[str]:
    """The versions of the pairs whose incremental runs have begun to replace rows of this run."""
    rows = ledger.rows(state=REPLACING)
    return [row["input_versions"]["pairs"] for row in rows if row["input_versions"][BASE_RUN] == run_id]


def since(identity: Identity, base: RunState) -> Identity:
    """The identity of the run that adds to `base` what changed since."""
    versions = {**identity.input_versions, SINCE: base.run.input_versions["pairs"], BASE_RUN: base.run.run_id}
    return replace(identity, input_versions=versions)


def changed_pairs(pairs: PinnedPairs, base: RunState) -> tuple[DataFrame, DataFrame]:
    """The pairs that came or whose text changed since the base run read them, and the keys that left.

    Row by row, copies that came are set against copies that went, so that neither the order of the commits matters, nor
    a row that was taken out and put back as it was.

    Returns:
        query_id, passage_id, query, passage to score; and query_id, passage_id of pairs that are there no more.

    Raises:
        InputError: the table does not tell of all those changes.
    """
    first, last = int(base.run.input_versions["pairs"].partition("@")[2]) + 1, pairs.delta_version
    where = pairs.table.location
    try:
        changes = pairs.table.changes(first, last)
        changes.limit(1).collect()  # the feed's gaps show here, before anything is started
    except PySparkException as error:
        raise InputError(
            f"{where} does not tell what changed from version {first} to {last}: its change feed was off for a part "
            f"of them, or VACUUM removed it. ALTER TABLE … SET TBLPROPERTIES (delta.enableChangeDataFeed = true), "
            f"then run once without --incremental"
        ) from error
    sign = F.create_map(*(F.lit(part) for pair in _SIGN.items() for part in pair))[F.col("_change_type")]
    joined = pairs.keys is not None  # then a pair's passage never changes: its id is made of its text
    changes = changes.withColumn(PASSAGE, F.lit(None).cast("string")) if joined else changes
    texts = check_pairs(changes, where, keep=("_change_type",)).withColumn("sign", sign)
    net = (
        texts.withColumn(CONTENT_HASH, F.xxhash64(QUERY, PASSAGE))
        .groupBy(*PAIR_KEY, CONTENT_HASH)
        .agg(F.sum("sign").alias("net"), F.first(QUERY).alias(QUERY), F.first(PASSAGE).alias(PASSAGE))
        .where("net != 0")
    )
    came = net.where("net > 0").select(*PAIR, F.explode(F.sequence(F.lit(1), F.col("net"))).alias("_copy"))
    gone = net.groupBy(*PAIR_KEY).agg(F.max("net").alias("most")).where("most < 0")
    came = with_passages(came.drop(PASSAGE), pairs.table) if joined else came
    return came.select(*PAIR), gone.select(*PAIR_KEY)


def refuse_duplicates(rejected: Table, changed: DataFrame, chain: list[str]) -> None:
    """Refuse changes to keys of which the base run rejected copies: whether a copy stayed, the feed does not tell.

    Raises:
        InputError: names one such key.
    """
    copies = rejected.read().where(F.col("run_id").isin(chain) & (F.col(ERROR_CODE) == RejectCode.DUPLICATE_KEY.value))
    if copies.isEmpty():
        return
    found = copies.select(*PAIR_KEY).join(changed.select(*PAIR_KEY), list(PAIR_KEY)).first()
    if found is not None:
        raise InputError(
            f"the pair ({found[0]}, {found[1]}) changed, and had several rows with this key before: remove the "
            f"duplicates from the pairs, or run without --incremental"
        )


def chain_of(ledger: Ledger, run_id: str) -> list[str]:
    """The runs whose rows together are the scores of a run: itself, the run it adds to, and so on."""
    chain = [run_id]
    while True:
        state = RunState.of(ledger.rows(run_id=chain[-1]))
        base = state.run.input_versions.get(BASE_RUN) if state else None
        if base is None:
            return chain
        chain.append(base)


def take_out(table: Table, laid_out: DataFrame, chain: list[str]) -> None:
    """Delete the rows that earlier runs of the chain wrote for keys that changed or left. A repeat finds none.

    One scan of the key columns of the files that may hold such keys; files without any stay as they are.
    """
    if table.read().where(F.col("run_id").isin(chain)).isEmpty():
        return
    keys = laid_out.select(*PAIR_KEY).distinct()
    same = " AND ".join(f"old.{name} <=> changed.{name}" for name in PAIR_KEY)
    runs = ", ".join(map(literal, chain))
    merge = table.delta().alias("old").merge(keys.alias("changed"), f"{same} AND old.run_id IN ({runs})")
    despite_conflicts(merge.whenMatchedDelete().execute)
