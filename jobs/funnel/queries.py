"""Normalises and merges the queries of a log, and tells head, body and tail by their impressions."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.funnel.inputs import QUERIES, Fault, text_faults, told, with_faults
from mkdm.columns import ERROR_CODE, FREQUENCY, QUERY, QUERY_ID, SEGMENT
from mkdm.errors import RejectCode
from udfs.passages import normalise_udf

HEAD, BODY, TAIL, UNSEGMENTED = "head", "body", "tail", "all"
RAW_QUERY_ID = "raw_query_id"
_ABOVE = "_above"


def normalised(rows: DataFrame, most: int = 2_000) -> DataFrame:
    """The queries with their normalised text, or with the reason why they are left out.

    Args:
        rows: query_id, query, and perhaps frequency.
        most: characters of a query at most.

    Returns:
        query_id, query (normalised, null for a text that is invalid or too long), frequency (null for none known),
        error_code, error_message.
    """
    if FREQUENCY not in rows.columns:
        rows = rows.withColumn(FREQUENCY, F.lit(None).cast("double"))
    frequency = F.col(FREQUENCY)
    wrong = frequency.isNotNull() & (F.isnan(frequency) | (frequency < 0) | (frequency == float("inf")))
    faults: list[Fault] = [
        *text_faults(QUERY, most),
        (
            RejectCode.INVALID_FREQUENCY,
            wrong,
            F.concat(F.lit("frequency is "), told(frequency), F.lit("; it must be at least 0, or null")),
        ),
    ]
    coded = with_faults(rows, QUERIES, *faults, first=F.desc_nulls_last(FREQUENCY))
    fit = F.is_valid_utf8(QUERY) & (F.length(QUERY) <= most)  # the time of NFKC may grow with the square of the length
    return coded.withColumn(QUERY, normalise_udf()(F.when(fit, F.col(QUERY))))


def merged(coded: DataFrame) -> DataFrame:
    """Queries of the same normalised text as one: the least of their ids, the sum of their frequencies.

    Returns:
        query_id, query, frequency (null where no row had one), raw_query_ids (all of them).
    """
    fit = coded.where(F.col(ERROR_CODE).isNull())
    return fit.groupBy(QUERY).agg(
        F.min(QUERY_ID).alias(QUERY_ID),
        F.sum(FREQUENCY).alias(FREQUENCY),
        F.collect_list(QUERY_ID).alias("raw_query_ids"),
    )


def with_segments(queries: DataFrame, head_share: float, body_share: float) -> DataFrame:
    """The queries with the column segment: head, body, tail; or all, where no query has a frequency above 0.

    Queries in order of frequency take up the head's share of all impressions, then the body's; the frequency that
    crosses a border still belongs to what lies before it. Queries of one frequency are always in one segment, so that
    neither chance nor order decides, and no sort of all queries is needed. Without a frequency a query counts as 0.

    Args:
        queries: query_id, query, frequency, and more.
        head_share, body_share: shares of the impressions, 0 to 1.
    """
    queries = queries.withColumn("_frequency", F.coalesce(FREQUENCY, F.lit(0.0)))
    histogram = queries.groupBy("_frequency").agg(F.sum("_frequency").alias("_impressions"))
    histogram = histogram.withColumn("_zero", F.col("_frequency") * 0)  # Spark warns of windows over everything
    everything = Window.partitionBy("_zero")  # there are few distinct frequencies
    above = everything.orderBy(F.desc("_frequency")).rowsBetween(Window.unboundedPreceding, -1)
    borders = histogram.select(
        "_frequency",
        F.coalesce(F.sum("_impressions").over(above), F.lit(0.0)).alias(_ABOVE),
        F.sum("_impressions").over(everything).alias("_total"),
    )
    share = F.try_divide(_ABOVE, "_total")
    segment = (
        F.when(F.col("_total") == 0, UNSEGMENTED)
        .when((share < head_share) & (F.col("_frequency") > 0), HEAD)
        .when((share < head_share + body_share) & (F.col("_frequency") > 0), BODY)
        .otherwise(TAIL)
    )
    return queries.join(borders, "_frequency").withColumn(SEGMENT, segment).drop("_frequency", _ABOVE, "_total")
