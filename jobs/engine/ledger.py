"""The ledger of runs: what makes two runs the same, and the rows of `runs` that say how far each one has come.

A row without a chunk speaks of the whole run (started; replacing the rows of the run that it adds to; failed; complete;
removed), a row with one of that chunk (complete). Nothing is ever updated, so that the ledger is also the history.
"""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql.functions import col

from jobs.engine.identity import ORIGIN, Identity
from jobs.engine.schemas import TABLES, arrow_type
from jobs.engine.table import Table
from mkdm import __version__
from mkdm.errors import ConfigError

BASE_RUN = "base_run"
"""Among the input versions of an incremental run, the run that it adds to."""
STARTED, REPLACING, COMPLETE, FAILED, REMOVED = "started", "replacing", "complete", "failed", "removed"


@dataclass(frozen=True)
class Run:
    """One run of a job: same job, same settings, same model and same input make the same run.

    Attributes:
        run_id: names the run in every table it writes.
        fingerprint: hash of all that decides its output.
        settings: what was chosen that changes a score.
        input_versions: by input, the version it was read at.
        rows: rows of its input.
        chunks: into how many chunks it is cut, by document or passage.
    """

    run_id: str
    job: str
    fingerprint: str
    settings: dict[str, str]
    input_versions: dict[str, str]
    model_version: str
    rows: int
    chunks: int
    started_at: datetime

    def transaction(self, part: int | str) -> str:
        """The Delta transaction id of a chunk, or of a step: a repeated commit under it writes nothing.

        Each chunk has an id of its own: under one id with rising versions, a chunk that commits after a later one
        would be taken for done.
        """
        return f"{self.run_id}/{self.fingerprint}/{part}"


@dataclass(frozen=True)
class Totals:
    """What a run or a chunk did, as in `runs`.

    Attributes:
        tokens: tokens that the model computed, special tokens included, padding left out.
        padding_ratio: share of padding among the tokens that the model computed.
        seconds: wall time that it took; of a run that was cut off, of the attempts that got chunks done.
    """

    rows_read: int = 0
    rows_written: int = 0
    rows_rejected: int = 0
    tokens: int = 0
    padding_ratio: float = 0.0
    model_loads: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Details:
    """What a chunk did, in detail; a row of `runs` keeps it for `mkdm runs --report`, and no other reader takes it.

    Attributes:
        token_histogram: pairs that the model computed, by tokens rounded up to a multiple of TOKENS_STEP.
        loads: rows, tokens and seconds of each loaded model, by its load_id.
    """

    token_histogram: dict[int, int] = field(default_factory=dict)
    loads: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """How far one run has come.

    Attributes:
        state: started, replacing, failed, complete or removed.
        chunks: by number, the chunks that are complete.
        totals: of the whole run if it is complete, else of its complete chunks.
        last_seen: when its newest row was written.
    """

    run: Run
    state: str
    chunks: dict[int, Totals] = field(repr=False)
    totals: Totals
    last_seen: datetime

    @classmethod
    def of(cls, rows: list[Row]) -> "RunState | None":
        """The state that the rows of one run tell, oldest first; None where there is none."""
        whole = [row for row in rows if row["chunk"] is None and row["settings"] is not None]
        if not whole:
            return None
        first, newest = whole[0], rows[-1]
        chunks = {row["chunk"]: _totals(row) for row in rows if row["chunk"] is not None}
        complete = next((row for row in whole if row["state"] == COMPLETE), None)
        if complete is not None or whole[-1]["state"] == REMOVED:
            state = whole[-1]["state"]
        else:  # a run that goes on after a failure has rows of chunks after it
            state = newest["state"] if newest["state"] in (FAILED, REPLACING) else STARTED
        chosen = {name: first[name] for name in Run.__dataclass_fields__ if name != "rows"}
        return cls(
            run=Run(rows=first["rows_read"], **chosen),
            state=state,
            chunks=chunks,
            totals=sum_of(list(chunks.values())) if complete is None else _totals(complete),
            last_seen=newest["finished_at"] or newest["started_at"],
        )

    @property
    def identity(self) -> Identity:
        """What decided its output."""
        settings, origin = dict(self.run.settings), {}
        for name in [name for name in settings if name.startswith(ORIGIN)]:
            origin[name] = settings.pop(name)
        return Identity(self.run.job, settings, self.run.input_versions, self.run.model_version, origin)


def _totals(row: Row) -> Totals:
    return Totals(**{name: row[name] or 0 for name in Totals.__dataclass_fields__})


def sum_of(parts: list[Totals]) -> Totals:
    """The totals of several chunks together; model loads are the most of any one of them, since chunks share loads."""
    tokens = sum(part.tokens for part in parts)
    computed = sum(part.tokens / (1 - part.padding_ratio) for part in parts)
    return Totals(
        rows_read=sum(part.rows_read for part in parts),
        rows_written=sum(part.rows_written for part in parts),
        rows_rejected=sum(part.rows_rejected for part in parts),
        tokens=tokens,
        padding_ratio=1 - tokens / computed if computed else 0.0,
        model_loads=max((part.model_loads for part in parts), default=0),
        seconds=sum(part.seconds for part in parts),
    )


@dataclass(frozen=True)
class Ledger:
    """The `runs` table, which need not exist yet."""

    table: Table
    _free: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """By fingerprint, the name that `find` has found free."""
    _done: dict[str, "Done"] = field(default_factory=dict, repr=False, compare=False)
    """By run, its complete chunks, so that a ledger to which nobody else adds is not read again for each chunk."""

    def rows(self, **equal: str) -> list[Row]:
        """The rows with these values, oldest first; none where there is no table."""
        if not self.table.exists():
            return []
        found = self.table.read().drop(*Details.__dataclass_fields__)
        for name, value in equal.items():
            found = found.where(col(name) == value)
        return sorted(found.collect(), key=lambda row: row["finished_at"] or row["started_at"])

    def find(self, identity: Identity, run_id: str | None) -> RunState | None:
        """The run of that identity, or of that name, if it was started; not if other runs have replaced rows of it.

        Raises:
            ConfigError: the named run is another one; the text says what differs. Or its rows are there no more.
        """
        name = run_id or own_name(identity)
        while rows := self.rows(run_id=name):
            state = RunState.of(rows)
            if state is None:  # rows of an engine that told less of its runs
                return None
            if state.state != REMOVED:
                if state.run.fingerprint != identity.fingerprint:
                    raise ConfigError(
                        f"run {name} was started with another fingerprint, {state.run.fingerprint}, than "
                        f"{identity.fingerprint} ({identity.differences(state.identity)}): go on with what it was "
                        f"started with, or give another --run-id"
                    )
                if not self.replaced_by(name):
                    return state
            if run_id is not None:
                what = "removed" if state.state == REMOVED else "replaced in part by an incremental run"
                raise ConfigError(f"run {name} was {what}: give another --run-id")
            name = next_name(name)
        self._free[identity.fingerprint] = name
        return None

    def replaced_by(self, run_id: str) -> list[Row]:
        """The rows of incremental runs that have begun to replace rows of this run."""
        return [row for row in self.rows(state=REPLACING) if row["input_versions"].get(BASE_RUN) == run_id]

    def free_name(self, identity: Identity, run_id: str | None) -> str:
        """The name for a run that `find` did not find."""
        if run_id is not None:
            return run_id
        name = self._free.get(identity.fingerprint)
        if name is None:
            name = own_name(identity)
            while self.rows(run_id=name):
                name = next_name(name)
        return name

    def start(self, identity: Identity, run_id: str, rows: int, chunks: int) -> RunState:
        """Record that a run was started. Where another driver was first, its cut into chunks holds."""
        run = Run(
            run_id=run_id,
            job=identity.job,
            fingerprint=identity.fingerprint,
            settings=identity.settings | identity.origin,
            input_versions=identity.input_versions,
            model_version=identity.model_version,
            rows=rows,
            chunks=chunks,
            started_at=datetime.now(UTC).astimezone().replace(tzinfo=None),
        )
        version = self.record(run, STARTED)
        if version is not None and run_id.startswith(
            own_name(identity)
        ):  # a name that a user gave may be another run's, too
            self._done[run_id] = Done(version)
            return RunState(run, STARTED, {}, Totals(), run.started_at)
        state = RunState.of(self.rows(run_id=run_id))
        assert state is not None
        return state

    def record(self, run: Run, state: str, totals: Totals | None = None) -> int | None:
        """Append a row on a whole run. That it was started or is complete is recorded once.

        Returns:
            The version of the table that has it from now on; None where it was recorded before.
        """
        once = run.transaction(state)
        return self._append(
            run, state, None, totals, once if state in (STARTED, REPLACING, COMPLETE) else f"{once}/{datetime.now(UTC)}"
        )

    def complete_chunk(self, run: Run, chunk: int, totals: Totals, details: Details | None = None) -> None:
        """Record a chunk complete, once."""
        self._append(run, COMPLETE, chunk, totals, run.transaction(chunk), details)

    def _append(
        self,
        run: Run,
        state: str,
        chunk: int | None,
        totals: Totals | None,
        transaction: str,
        details: Details | None = None,
    ) -> int | None:
        row = asdict(run) | {"chunk": chunk, "state": state, "engine_version": __version__}
        row |= asdict(totals) if totals else {"rows_read": run.rows}
        row |= asdict(details) if details else {}
        row["started_at"] = run.started_at.astimezone(UTC)  # as read from a table it is local, and does not say so
        row["finished_at"] = None if state == STARTED else datetime.now(UTC)
        schema = TABLES["runs"].schema
        # a relation of the driver's own: rows of Python objects would take a Python worker to unpack
        row = pa.table({field.name: pa.array([row.get(field.name)], arrow_type(field.dataType)) for field in schema})
        version = self.table.append(self.table.spark.createDataFrame(row, schema), transaction)
        done = self._done.get(run.run_id)
        if version is not None and done is not None and done.version == version - 1:  # nobody came between
            done.version = version
            done.chunks |= {chunk} if chunk is not None and state == COMPLETE else set()
        return version

    def states(self, **equal: str) -> list[RunState]:
        """The runs, oldest first, with the totals of their complete chunks."""
        by_run: dict[str, list[Row]] = {}
        for row in self.rows(**equal):
            by_run.setdefault(row["run_id"], []).append(row)
        return [state for state in map(RunState.of, by_run.values()) if state is not None]

    def chunk_done(self, run: Run, chunk: int) -> bool:
        """Whether that chunk is complete by now, by this driver or another one."""
        rows = self.table.read()
        version = self.table.snapshot(rows).version
        done = self._done.get(run.run_id)
        if done is None or done.version != version:
            mine = rows.where((col("run_id") == run.run_id) & (col("state") == COMPLETE) & col("chunk").isNotNull())
            done = self._done[run.run_id] = Done(version, {row["chunk"] for row in mine.select("chunk").collect()})
        return chunk in done.chunks


@dataclass
class Done:
    """The complete chunks of a run, as a version of the ledger tells them."""

    version: int
    chunks: set[int] = field(default_factory=set)


def own_name(identity: Identity) -> str:
    """The name of the first run of an identity, unless a user gives one."""
    return f"{identity.job}-{identity.fingerprint[:16]}"


def newest_build(ledger: Ledger, job: str) -> RunState | None:
    """The run of that job that was started last, whatever became of it."""
    return max(ledger.states(job=job), key=lambda state: state.run.started_at, default=None)


def next_name(name: str) -> str:
    """The name of a run that is made once more: NAME, NAME.2, NAME.3."""
    stem, _, number = name.partition(".")
    return f"{stem}.{int(number or 1) + 1}"
