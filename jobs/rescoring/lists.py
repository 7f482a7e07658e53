"""Lists whose head a teacher has read: its order and scores, then what the student put below, on one scale."""

from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.engine import released, stored
from jobs.rescoring.calibration import Calibration
from jobs.rescoring.teacher_run import TEXT_KEY, Rescoring
from mkdm.columns import MODEL_VERSION, PAIR_KEY, PASSAGE_ID, QUERY_ID, RANK, RUN_ID, SCORE
from mkdm.errors import RejectRateError, RunFailedError

CALIBRATION_PAIRS = 50_000
"""Pairs about that a calibration is fitted on, by the hash of their keys."""
_HASHES = 1 << 20
BELOW = 1 - 2**-20
"""How far below the least of a head what follows it is kept, as a factor: some steps of a float32."""
_OF_TEACHER = {SCORE: "teacher_score", MODEL_VERSION: "teacher_version", RUN_ID: "teacher_run"}
_HEAD, _MAPPED, _BORDER, _MOST = "head", "mapped", "border", "most"


@dataclass(frozen=True)
class Lists:
    """The best passages of each query by the student, and what the teacher says of their heads.

    Attributes:
        rows: the columns of `best`, head (whether the row is of it), and of the teacher teacher_score, teacher_version
            and teacher_run, null where it has not read the pair. Stored until `release`.
        heads: pairs of all heads.
        read: those of them that the teacher has a score for.
    """

    rows: DataFrame
    rescoring: Rescoring
    heads: int
    read: int

    @classmethod
    def of(cls, best: DataFrame, rescoring: Rescoring) -> "Lists":
        """Join the two.

        Args:
            best: query_id, rank by the student's score, passage_id, score, model_version, run_id, content_hash, and
                whatever else is to be kept.

        Raises:
            RunFailedError: a pair of a head is neither read nor rejected.
        """
        head = F.col(RANK) <= rescoring.top
        said = rescoring.rows().select(*TEXT_KEY, *(F.col(name).alias(new) for name, new in _OF_TEACHER.items()))
        rows = best.withColumn(_HEAD, head).join(said.withColumn(_HEAD, F.lit(True)), [*TEXT_KEY, _HEAD], "left")
        rows = stored(rows)
        counted = rows.where(_HEAD).agg(F.count("*").alias("heads"), F.count(_OF_TEACHER[SCORE]).alias("read"))
        found = counted.collect()[0]
        run, rejected = rescoring.report.run.run_id, rescoring.report.totals.rows_rejected
        if found["heads"] - found["read"] != rejected:
            released(rows)
            raise RunFailedError(
                f"of {found['heads']:,} pairs in the heads {found['read']:,} have a teacher's score and {rejected:,} "
                f"were rejected by run {run}: remove that run with mkdm runs --remove, and start again"
            )
        return cls(rows, rescoring, found["heads"], found["read"])

    def release(self) -> None:
        """Drop what is stored of them."""
        released(self.rows)

    def refuse_rejects(self, max_reject_rate: float) -> None:
        """Refuse lists whose heads lack too much; nothing is published then.

        Raises:
            RejectRateError: says how much, why, and where the rejects are.
        """
        report = self.rescoring.report
        rate = 1 - self.read / max(1, self.heads)
        if self.heads and rate > max_reject_rate:
            raise RejectRateError(
                f"the teacher rejected {rate:.1%} of the heads ({report.reasons()}), more than --max-reject-rate "
                f"{max_reject_rate:.1%}, and nothing is published: see {report.tables['rejected_pairs']} where run_id "
                f"= {report.run.run_id}"
            )

    def calibration(self, top_k: int) -> Calibration | None:
        """A map fitted on the pairs of the heads that both have scored, about CALIBRATION_PAIRS of them at most.

        None where lists of that length show no score of the student.
        """
        if top_k <= self.rescoring.top and self.read == self.heads:
            return None
        share = min(_HASHES, int(CALIBRATION_PAIRS / max(1, self.read) * _HASHES) + 1)
        both = self.rows.where(F.col(_OF_TEACHER[SCORE]).isNotNull())
        both = both.where(F.pmod(F.xxhash64(*PAIR_KEY), F.lit(_HASHES)) < share)
        sample = both.select(SCORE, _OF_TEACHER[SCORE]).toPandas()
        return Calibration.fit(sample[SCORE].to_numpy(), sample[_OF_TEACHER[SCORE]].to_numpy())

    def published(self, calibration: Calibration | None, top_k: int) -> DataFrame:
        """The lists as readers get them: by falling score, equal scores by passage_id.

        A row of the head has the teacher's score, version and run; one that the teacher rejected, and those below the
        head, the student's, with the score that the calibration makes of it. Where the best of those below would so
        reach the least of its head, the scores below are shrunk, all by one factor, to lie just below it.

        Returns:
            The columns of `best`, with the new rank.
        """
        columns = [name for name in self.rows.columns if name not in (*_OF_TEACHER.values(), _HEAD)]
        of_query = Window.partitionBy(QUERY_ID)
        rows = self.rows.withColumn(_MAPPED, (calibration or Calibration()).column(F.col(SCORE)))
        own = F.coalesce(F.col(_OF_TEACHER[SCORE]).cast("double"), F.col(_MAPPED))
        least = F.min(F.when(F.col(_HEAD), own)).over(of_query)
        rows = rows.withColumn(_BORDER, least * F.lit(BELOW))
        rows = rows.withColumn(_MOST, F.max(F.when(~F.col(_HEAD), F.col(_MAPPED))).over(of_query))
        shrunk = F.least(F.col(_BORDER), F.col(_MAPPED) * F.col(_BORDER) / F.col(_MOST))
        below = F.when(F.col(_MOST) > F.col(_BORDER), shrunk).otherwise(F.col(_MAPPED))
        score = F.when(F.col(_HEAD), own).otherwise(below).cast("float")
        rows = rows.withColumn(SCORE, score)
        for name in (MODEL_VERSION, RUN_ID):
            rows = rows.withColumn(name, F.coalesce(_OF_TEACHER[name], name))
        by_score = of_query.orderBy(F.col(SCORE).desc(), PASSAGE_ID)
        rows = rows.withColumn(RANK, F.row_number().over(by_score))
        return rows.where(F.col(RANK) <= top_k).select(*columns)
