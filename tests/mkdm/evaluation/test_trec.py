"""TREC's and BEIR's files: what is read, and every fault told by file and line."""

import pytest

from mkdm.errors import InputError
from mkdm.evaluation.ranking_metrics import ranking
from mkdm.evaluation.trec import read_qrels, read_run, run_lines


def test_qrels_between_tabs_and_spaces():
    lines = [b"q1 0 d1 2\r\n", b"q1\t0\td2\t0\n", b"\n", "q2  Q0  d\u00e9\u00a01   -1".encode()]
    assert read_qrels(lines, "qrels") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d\u00e9\u00a01": -1}}


def test_qrels_of_beir():
    lines = [b"query-id\tcorpus-id\tscore\n", b"q 1\tMED-1\t1\r\n", b"q 1\tMED-2\t2\n"]
    assert read_qrels(lines, "test.tsv") == {"q 1": {"MED-1": 1, "MED-2": 2}}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"q 0 d 1", b"q 0 d"], r"^qrels line 2: 3 fields and not 4$"),
        ([b"q 0 d 1 more"], r"^qrels line 1: 5 fields and not 4$"),
        ([b"query-id\tcorpus-id\tscore", b"q\td 1"], r"^qrels line 2: 2 fields and not 3$"),
        ([b"query-id\tcorpus-id\tscore", b"q\t\t1"], r"^qrels line 2 has an empty field$"),
        ([b"q 0 d 0.5"], r"^qrels line 1: the grade is '0\.5'; it must be a whole number$"),
        ([b"q 0 d 1", b"", b"q 0 d 1"], r"^qrels line 3: query q and document d were judged before, in line 1: "),
        ([b"q 0 \xff 1"], r"^qrels line 1 is not valid UTF-8$"),
        ([b"", b" "], r"^qrels has no judgment$"),
    ],
)
def test_judgments_at_fault(lines, message):
    with pytest.raises(InputError, match=message):
        read_qrels(lines, "qrels")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"q Q0 d 1 0.5"], r"^run line 1: 5 fields and not 6$"),
        ([b"q Q0 d 1 high tag"], r"^run line 1: the score is 'high'; it must be a finite number$"),
        ([b"q Q0 d 1 nan tag"], r"^run line 1: the score is 'nan'; it must be a finite number$"),
        ([b"q Q0 d 1 2 tag", b"q Q0 d 2 1 tag"], r"^run line 2: query q has document d a second time: leave one line$"),
        ([], r"^run has no line: it ranks nothing$"),
    ],
)
def test_lines_of_a_run_at_fault(lines, message):
    with pytest.raises(InputError, match=message):
        read_run(lines, "run")


def test_a_run_is_written_as_it_is_read():
    run = read_run([b"q Q0 a 9 0.25 x", b"q\tQ0\tb\t8\t0.1\tx", b"q Q0 c 7 0.25 x"], "run")
    assert run == {"q": {"a": 0.25, "b": 0.1, "c": 0.25}}
    lines = list(run_lines(run, {query: ranking(scores) for query, scores in run.items()}, "mkdm"))
    assert lines == ["q Q0 c 1 0.25 mkdm\n", "q Q0 a 2 0.25 mkdm\n", "q Q0 b 3 0.1 mkdm\n"]
    assert read_run([line.encode() for line in lines], "again") == run
    for query, document in (("q 1", "d"), ("q", "")):
        with pytest.raises(InputError, match="white space, which a TREC run cannot hold"):
            list(run_lines({query: {document: 1.0}}, {query: [document]}, "mkdm"))
