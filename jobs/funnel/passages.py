"""Cuts the documents that are new or changed into passages, keeps the others', and finds duplicates among them all."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.engine import with_bucket
from jobs.funnel.inputs import DOCUMENTS, text_faults, with_faults
from mkdm.columns import BUCKET, DOC_ID, ERROR_CODE, ERROR_MESSAGE, ORDINAL, PASSAGE, PASSAGE_ID, TEXT
from mkdm.errors import RejectCode
from udfs.passages import ERROR, HTML, KEY, CutSettings, cut_udf, strip_html_udf

CUT_HASH, DUPLICATE_OF, DOCUMENTS_SHARING = "cut_hash", "duplicate_of", "documents_sharing"
HAS_HTML = "has_html"
PASSAGE_COLUMNS = (PASSAGE_ID, DOC_ID, ORDINAL, PASSAGE, CUT_HASH, DUPLICATE_OF, DOCUMENTS_SHARING, BUCKET)


def coded_documents(rows: DataFrame, html: str, settings: CutSettings, most: int = 5_000_000) -> DataFrame:
    """The documents with what they are cut from, or with the reason why they are left out.

    Args:
        rows: doc_id, text.
        html: strip, keep or reject.
        most: characters of a document at most, its HTML counted.

    Returns:
        doc_id, text, has_html, cut_hash (xxhash64 of the text and of all that decides where it is cut), error_code,
        error_message.
    """
    fit = F.is_valid_utf8(TEXT) & (F.length(TEXT) <= most)
    has_html = F.coalesce(F.when(fit, F.col(TEXT).rlike(HTML)), F.lit(False))
    rows = rows.withColumn(HAS_HTML, has_html).withColumn("_length", F.length(TEXT))
    faults = text_faults(TEXT, most, F.col("_length"))
    if html == "strip":
        rows = rows.withColumn("_stripped", strip_html_udf()(F.when(F.col(HAS_HTML), F.col(TEXT))))
        rows = rows.withColumn(TEXT, F.coalesce("_stripped", TEXT)).drop("_stripped")
    elif html == "reject":
        faults.append((RejectCode.HTML_TEXT, F.col(HAS_HTML), "text has HTML tags; --html strip takes them out"))
    coded = with_faults(rows, DOCUMENTS, *faults).drop("_length")
    return coded.withColumn(CUT_HASH, F.xxhash64(F.col(TEXT), F.lit(str(settings))))


def cut(documents: DataFrame, existing: DataFrame, settings: CutSettings) -> DataFrame:
    """The passages of all documents: cut now where a document is new or changed, taken over where it is not.

    Args:
        documents: as `coded_documents` gives them.
        existing: the passages of an earlier build.

    Returns:
        passage_id, doc_id, ordinal, passage, cut_hash, error_message, cut_now. A document that could not be cut has one
        row, with doc_id and error_message alone.
    """
    fit = documents.where(F.col(ERROR_CODE).isNull()).select(DOC_ID, CUT_HASH, TEXT)
    known = existing.select(DOC_ID, CUT_HASH).distinct()
    fresh = fit.join(known, [DOC_ID, CUT_HASH], "left_anti").withColumn("_cut", cut_udf(settings)(TEXT))
    made = fresh.select(DOC_ID, CUT_HASH, F.posexplode("_cut").alias(ORDINAL, "_one")).select(
        F.concat_ws(":", DOC_ID, F.when(F.col(f"_one.{ERROR}").isNull(), F.col(f"_one.{KEY}"))).alias(PASSAGE_ID),
        DOC_ID,
        ORDINAL,
        F.col(f"_one.{PASSAGE}").alias(PASSAGE),
        CUT_HASH,
        F.col(f"_one.{ERROR}").alias(ERROR_MESSAGE),
        F.lit(True).alias("cut_now"),
    )
    kept = existing.join(fit.select(DOC_ID, CUT_HASH), [DOC_ID, CUT_HASH], "left_semi").select(
        PASSAGE_ID,
        DOC_ID,
        ORDINAL,
        PASSAGE,
        CUT_HASH,
        F.lit(None).cast("string").alias(ERROR_MESSAGE),
        F.lit(False).alias("cut_now"),
    )
    return made.unionByName(kept)


def uncut(passages: DataFrame) -> DataFrame:
    """The documents that could not be cut, as `rejected_inputs` takes them.

    Args:
        passages: as `cut` returned them.
    """
    failed = passages.where(F.col(ERROR_MESSAGE).isNotNull())
    return failed.select(DOC_ID, F.lit(RejectCode.CUTTER_ERROR.value).alias(ERROR_CODE), ERROR_MESSAGE)


def exact_duplicates(passages: DataFrame) -> DataFrame:
    """By passage that is not alone with its text: duplicate_of, the least passage_id of the same text.

    Args:
        passages: passage_id, doc_id, passage.

    Returns:
        passage_id, duplicate_of (null for the least one itself), documents_sharing (how many documents have the text).
    """
    text: list[Column] = [F.xxhash64(PASSAGE).alias("_hash"), F.length(PASSAGE).alias("_length")]
    hashed = passages.select(PASSAGE_ID, DOC_ID, *text)
    groups = (
        hashed.groupBy("_hash", "_length")
        .agg(
            F.min(PASSAGE_ID).alias("_least"),
            F.count("*").alias("_count"),
            F.count_distinct(DOC_ID).cast("int").alias(DOCUMENTS_SHARING),
        )
        .where("_count > 1")
    )
    return hashed.join(groups, ["_hash", "_length"]).select(
        PASSAGE_ID, F.nullif("_least", PASSAGE_ID).alias(DUPLICATE_OF), DOCUMENTS_SHARING
    )


def with_duplicates(passages: DataFrame, exact: DataFrame, near: DataFrame | None) -> DataFrame:
    """The passages as the table has them.

    Args:
        passages: passage_id, doc_id, ordinal, passage, cut_hash.
        exact: as `exact_duplicates` gives it.
        near: passage_id, duplicate_of of passages that are nearly another one, from `jobs.funnel.near_duplicates`.
    """
    joined = passages.join(exact, PASSAGE_ID, "left")
    joined = joined.withColumn(DOCUMENTS_SHARING, F.coalesce(DOCUMENTS_SHARING, F.lit(1)))
    if near is not None:
        nearly = near.select(F.col(PASSAGE_ID).alias("_of"), F.col(DUPLICATE_OF).alias("_nearly"))
        same = F.coalesce(DUPLICATE_OF, PASSAGE_ID)
        joined = joined.join(nearly, same == F.col("_of"), "left")
        joined = joined.withColumn(DUPLICATE_OF, F.coalesce("_nearly", DUPLICATE_OF))
    return with_bucket(joined).select(*PASSAGE_COLUMNS)
