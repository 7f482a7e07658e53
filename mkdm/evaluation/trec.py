"""TREC's files: graded judgments (qrels), BEIR's too, and ranked runs; read strictly, and written.

The formats are trec_eval's: fields between white space, `query 0 document grade`, and `query Q0 document rank score
tag`.
BEIR's qrels are `query-id corpus-id score` between tabs, with that header.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from mkdm.errors import InputError

Qrels = dict[str, dict[str, int]]
"""By query_id and document, the grade; 1 and above is relevant."""
TrecRun = dict[str, dict[str, float]]
"""By query_id and document, the score."""
_BEIR_HEADER = [b"query-id", b"corpus-id", b"score"]
_QRELS_FIELDS, _BEIR_FIELDS, _RUN_FIELDS = 4, 3, 6


def read_qrels(lines: Iterable[bytes], name: str) -> Qrels:
    """Read judgments of TREC, or of BEIR where the first line is BEIR's header. Empty lines are none.

    Args:
        lines: of the file, in UTF-8.
        name: of the file, for errors.

    Raises:
        InputError: a line has another number of fields, a grade that is no whole number, or a judgment that was there
            before, or there is no judgment; names file and line.
    """
    found: Qrels = {}
    places: dict[tuple[str, str], int] = {}
    beir = False
    for number, line in enumerate(lines, 1):
        if number == 1 and line.removeprefix(b"\xef\xbb\xbf").split() == _BEIR_HEADER:
            beir = True
            continue
        if not line.strip():
            continue
        fields = line.rstrip(b"\r\n").split(b"\t") if beir else line.split()
        where = f"{name} line {number}"
        texts = _texts(fields, _BEIR_FIELDS if beir else _QRELS_FIELDS, where)
        query, document, grade = texts[0], texts[-2], texts[-1]
        digits = grade.strip().removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InputError(f"{where}: the grade is {grade!r}; it must be a whole number")
        if (query, document) in places:
            raise InputError(
                f"{where}: query {query} and document {document} were judged before, in line "
                f"{places[query, document]}: leave one judgment"
            )
        places[query, document] = number
        found.setdefault(query, {})[document] = int(grade)
    if not found:
        raise InputError(f"{name} has no judgment")
    return found


def read_run(lines: Iterable[bytes], name: str) -> TrecRun:
    """Read a run. What stands under rank is not read, as in trec_eval: the scores order the documents.

    Args:
        lines: of the file, in UTF-8.
        name: of the file, for errors.

    Raises:
        InputError: a line has another number of fields, a score that is no finite number, or a document that its query
            had before, or there is no line; names file and line.
    """
    found: TrecRun = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        query, _, document, _, written, _ = _texts(line.split(), _RUN_FIELDS, where)
        try:
            score = float(written)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise InputError(f"{where}: the score is {written!r}; it must be a finite number")
        documents = found.setdefault(query, {})
        if document in documents:
            raise InputError(f"{where}: query {query} has document {document} a second time: leave one line")
        documents[document] = score
    if not found:
        raise InputError(f"{name} has no line: it ranks nothing")
    return found


def _texts(fields: list[bytes], wanted: int, where: str) -> list[str]:
    if len(fields) != wanted:
        raise InputError(f"{where}: {len(fields)} fields and not {wanted}")
    try:
        texts = [field.decode() for field in fields]
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not valid UTF-8") from error
    if not all(text.strip() for text in texts):
        raise InputError(f"{where} has an empty field")
    return texts


def run_lines(run: Mapping[str, Mapping[str, float]], ranked: Mapping[str, list[str]], tag: str) -> Iterator[str]:
    """The lines of a run's file, each with its end; scores with as many digits as give them back.

    Args:
        ranked: by query, its documents in their order, from `ranking_metrics.ranking`.
        tag: name of the run, without white space.

    Raises:
        InputError: an id is empty or has white space, which the format cannot hold.
    """
    for query, documents in ranked.items():
        for rank, document in enumerate(documents, 1):
            for what, text in (("query", query), ("document", document)):
                if len(text.encode().split()) != 1 or text.encode().split()[0] != text.encode():
                    raise InputError(f"the id {text!r} of a {what} has white space, which a TREC run cannot hold")
            yield f"{query} Q0 {document} {rank} {run[query][document]!r} {tag}\n"
