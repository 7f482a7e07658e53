"""The run of a teacher over the heads of the lists of one scoring run: what is not known yet of them, and no more.

It is a run as any other: in chunks, resumed, with rejects, in the ledger. It adds to the last complete run of the same
teacher with the same settings, whose scores of the same texts stand, whichever student had put them into a head. So
each pair of the heads has a row in `rescored`, of this run or of one that it adds to, or one of this run in
`rejected_pairs`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from cluster.session import task_slots
from jobs.engine import (
    BASE_RUN,
    COMPLETE,
    REMOVED,
    Identity,
    Ledger,
    Output,
    PairsJob,
    RunReport,
    RunState,
    Table,
    Totals,
    Warehouse,
    drop_staging,
    is_laid_out,
    read_pairs,
    released,
    say,
    score_blocks,
    scored_rows,
    stored,
)
from jobs.rescoring.flags import NamedTeacher, RescoreFlags, teacher_of
from mkdm.columns import CONTENT_HASH, PAIR, PAIR_KEY, PASSAGE, PASSAGE_ID, QUERY, RUN_ID
from mkdm.errors import InputError
from udfs.imports import import_ahead
from udfs.precision import settle_in_a_task
from udfs.scoring import RUNS_AS

RESCORE_JOB = "rescore"
"""The job of the runs that write `rescored`."""
SCORED_BY = "scored_by"
"""Among the input versions of a rescoring run, the scoring run whose lists it has read the heads of."""
TOP = "rescore_top"
TEXT_KEY = (*PAIR_KEY, CONTENT_HASH)
"""What tells a pair with its texts."""


@dataclass(frozen=True)
class Rescoring:
    """The teacher's scores for the heads of the lists of one scoring run.

    Attributes:
        report: of the run that read what was new in them.
        chain: that run, and those that it adds to, the newest first.
        rescored: the table with the scores of all of these.
        top: passages of a query that make its head.
    """

    report: RunReport
    chain: list[str]
    rescored: Table
    top: int

    def rows(self) -> DataFrame:
        """The rows of `rescored` of its chain; each pair with the same texts once."""
        return self.rescored.read().where(F.col(RUN_ID).isin(self.chain))


def rescore_heads(
    warehouse: Warehouse, ledger: Ledger, flags: RescoreFlags, scored: RunState, best: Callable[[int], DataFrame]
) -> Rescoring:
    """Have the teacher read what it has not read yet of the heads; a run that was cut off goes on.

    Args:
        scored: the scoring run whose lists are to be rescored.
        best: gives the best passages of each query, so many of them: query_id, passage_id, content_hash.

    Raises:
        ConfigError, ModelError: as for `teacher_of`.
        InputError: pairs of the heads are there no more with the texts that were scored.
        RunFailedError: a task failed for good, or rows went missing; what is committed stays.
    """
    teacher = teacher_of(flags)
    outputs = warehouse.outputs(flags, "rescored", "rejected_pairs", "runs")
    by_run = {
        state.run.run_id: state
        for state in ledger.states(job=RESCORE_JOB, model_version=teacher.checked.model_version)
        if state.state != REMOVED and _of_teacher(state) == teacher.settings
    }
    mine = [state for state in by_run.values() if _heads_of(state) == (scored.run.run_id, str(flags.rescore_top))]
    state = max(mine, key=lambda one: (one.state == COMPLETE, one.last_seen), default=None)
    if state is not None and state.state == COMPLETE:
        say(f"run {state.run.run_id} has read these heads already: nothing to rescore")
        drop_staging(warehouse, state.run)  # of a driver that was killed before it came to that
        report = RunReport.of(state.run, state.totals, outputs)
    else:
        complete = [one for one in by_run.values() if one.state == COMPLETE]
        base = max(complete, key=lambda one: one.last_seen, default=None)
        base_run = None if base is None else base.run.run_id
        if state is not None:
            base_run = state.run.input_versions.get(BASE_RUN)
        earlier = state or (by_run[base_run] if base_run is not None else None)
        if earlier is not None:  # its teacher goes on at the precision that it had
            runs_as = earlier.run.settings.get(RUNS_AS)
            teacher = replace(teacher, checked=replace(teacher.checked, runs_as=runs_as))
        report = _read_heads(warehouse, ledger, flags, teacher, scored, best, state, _chain(by_run, base_run), outputs)
    return Rescoring(
        report=report,
        chain=[report.run.run_id, *_chain(by_run, report.run.input_versions.get(BASE_RUN))],
        rescored=outputs["rescored"],
        top=flags.rescore_top,
    )


def _of_teacher(state: RunState) -> dict[str, str]:
    return {name: value for name, value in state.run.settings.items() if name not in (TOP, RUNS_AS)}


def _heads_of(state: RunState) -> tuple[str | None, str | None]:
    return state.run.input_versions.get(SCORED_BY), state.run.settings.get(TOP)


def _chain(by_run: dict[str, RunState], run_id: str | None) -> list[str]:
    """A run and those that it adds to; none for None."""
    chain = []
    while run_id is not None:
        chain.append(run_id)
        run_id = by_run[run_id].run.input_versions.get(BASE_RUN)
    return chain


def _read_heads(
    warehouse: Warehouse,
    ledger: Ledger,
    flags: RescoreFlags,
    teacher: NamedTeacher,
    scored: RunState,
    best: Callable[[int], DataFrame],
    state: RunState | None,
    base: list[str],
    outputs: dict[str, Table],
) -> RunReport:
    job = _job(warehouse, ledger, flags, scored)
    spark, checked = warehouse.spark, teacher.checked

    def complete(state: RunState, pairs: DataFrame) -> RunReport:
        if state.run.rows == 0:  # a model need not be loaded for that
            ledger.record(state.run, COMPLETE, Totals())
            return RunReport.of(state.run, Totals(), outputs)
        return job.complete(
            state,
            outputs,
            Output(outputs["rescored"], scored_rows),
            lambda blocks, tasks: score_blocks(blocks, checked, tasks),
            pairs=pairs,
            doing="rescoring",
        )

    if state is not None and is_laid_out(warehouse, state.run):  # then it is known what the teacher has to read
        import_ahead(spark, checked, task_slots(spark))
        return complete(state, job.pairs.rows.select(*PAIR).limit(0))
    known = outputs["rescored"].read().where(F.col(RUN_ID).isin(base)) if base else None
    pairs, count = _unread(job, best(flags.rescore_top), known, scored)
    try:
        if count:
            import_ahead(spark, checked, task_slots(spark))
        if count and state is None and checked.precision == "auto" and checked.runs_as is None:
            runs_as, told = settle_in_a_task(spark, checked)
            say(told)
            checked = replace(checked, runs_as=runs_as)
        if state is None:
            versions = job.pairs.versions | {SCORED_BY: scored.run.run_id} | ({BASE_RUN: base[0]} if base else {})
            settings = teacher.settings | checked.settled_setting | {TOP: str(flags.rescore_top)}
            state = job.start(Identity(RESCORE_JOB, settings, versions, checked.model_version), count)
        return complete(state, pairs)
    finally:
        released(pairs)


def _job(warehouse: Warehouse, ledger: Ledger, flags: RescoreFlags, scored: RunState) -> PairsJob:
    """The pairs whose texts are to be read: of the version that was scored, unless a flag says otherwise."""
    table = warehouse.table("pairs", flags.pairs)
    version, (known_id, _, number) = flags.pairs_version, scored.run.input_versions["pairs"].partition("@")
    if version is None and number and table.exists() and table.table_id() == known_id:
        version = int(number)
    pairs = read_pairs(warehouse.spark, table, version, options=flags.file_options(), faults="leave out")
    return PairsJob(warehouse.spark, flags, warehouse, pairs, ledger)


def _unread(job: PairsJob, heads: DataFrame, known: DataFrame | None, scored: RunState) -> tuple[DataFrame, int]:
    """The pairs of the heads that the teacher has not read, stored, and their number.

    Of several rows of one key, that one is read whose texts the student has read.

    Raises:
        InputError: some are there no more with the texts that were scored.
    """
    keys = heads.select(*TEXT_KEY)
    if known is not None:
        keys = keys.join(known.select(*TEXT_KEY), list(TEXT_KEY), "left_anti")
    keys = stored(keys)
    try:
        wanted = keys.count()
        rows, texts = job.pairs.without_texts, job.pairs.texts()
        rows = rows.join(keys, list(PAIR_KEY))  # before their texts are joined: few are in a head
        if texts is not None:
            rows = rows.drop(PASSAGE).join(texts, PASSAGE_ID, "left")
        rows = rows.where(F.xxhash64(QUERY, PASSAGE) == F.col(CONTENT_HASH)).dropDuplicates(list(PAIR_KEY))
        rows = stored(rows.select(*PAIR))
        found = rows.count()
    finally:
        released(keys)
    if found != wanted:
        released(rows)
        raise InputError(
            f"{job.pairs.table.location} has no more the texts of {wanted - found:,} of the {wanted:,} pairs that the "
            f"teacher is to read, as run {scored.run.run_id} has scored them: score the pairs again, or give the "
            f"version of them that has these by --pairs-version"
        )
    return rows, found
