"""CSV, TSV and JSON Lines: each row is read as it was written, or told with file and line; none is lost."""

import bz2
import gzip
import json

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from jobs.engine.pairs import read_pairs, read_pinned
from jobs.engine.row_codes import ROW_CODE, ROW_MESSAGE, with_row_code
from jobs.engine.table import Table
from jobs.engine.text_files import FileOptions
from jobs.funnel.inputs import read_input, text_faults, with_faults
from jobs.funnel.queries import normalised
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, InputError

HEADER = "query_id,passage_id,query,passage\n"
GOOD = "1,good,what is a gasket,A gasket is a seal.\n"


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(spark, path, **options):
    """By passage_id, the passage; and (query_id, passage_id, code, message) of the rows at fault."""
    pairs = read_pairs(spark, Table(spark, str(path)), None, options=FileOptions(**options))
    rows = with_row_code(pairs.rows).collect()
    assert pairs.count() == len(rows)
    fit = {row.passage_id: row.passage for row in rows if row[ROW_CODE] is None}
    faults = [(row.query_id, row.passage_id, row[ROW_CODE], row[ROW_MESSAGE]) for row in rows if row[ROW_CODE]]
    return fit, sorted(faults, key=lambda fault: fault[3])


def test_rows_that_do_not_fit(spark, tmp_path, capsys):
    rows = "1,a,what is a gasket,one, two, three\n1,b,what is a gasket\n1,c\n\n" + GOOD + "\r\n   \n"
    fit, faults = read(spark, put(tmp_path / "ragged.csv", HEADER + rows))
    assert fit == {"good": "A gasket is a seal."}
    assert faults == [
        ("1", "a", "malformed_row", "ragged.csv line 2: 6 fields and not 4"),
        ("1", "b", "malformed_row", "ragged.csv line 3: 3 fields and not 4"),
        ("1", "c", "malformed_row", "ragged.csv line 4: 2 fields and not 4"),
        ("   ", None, "malformed_row", "ragged.csv line 8: 1 field and not 4"),
    ]
    told = capsys.readouterr().err
    assert "2 empty lines left out" in told
    assert "4 rows at fault, the first: ragged.csv line 2: 6 fields and not 4" in told


def test_quotes_that_do_not_fit(spark, tmp_path):
    rows = (
        '1,a,what is a gasket,"Unclosed quote starts here\n1,b,what is a gasket,A seal.\n1,c,q,The moon is far.\n'
        '2,d,why,"Because" he said.\n2,e,why,a 3" pipe\n2,f,why,"fine, ""and"" quoted"\n2,g,why,"not closed\n' + GOOD
    )
    fit, faults = read(spark, put(tmp_path / "quotes.csv", HEADER + rows))
    assert fit == {
        "b": "A seal.",
        "c": "The moon is far.",
        "f": 'fine, "and" quoted',
        "good": "A gasket is a seal.",
    }
    assert faults == [
        ("1", "a", "malformed_row", "quotes.csv line 2: text follows the quote that closes a field"),
        ("2", "d", "malformed_row", "quotes.csv line 5: text follows the quote that closes a field"),
        ("2", "e", "malformed_row", "quotes.csv line 6: a quote stands within a field that is not quoted"),
        ("2", "g", "malformed_row", "quotes.csv line 8: a quote opens and never closes"),
    ]


def test_what_fits(spark, tmp_path):
    rows = (
        '1,quoted,q,"one, ""two""\r\nthree"\r\n'
        "1,empty,q,\r\n"
        '1,"quoted, empty",q,""\r\n'
        '"1","all","q"," spaces "\r\n'
        "1,no line end,q,last"
    )
    fit, faults = read(
        spark, put(tmp_path / "x.csv", b"\xef\xbb\xbf" + (' query_id ,"passage_id",query,passage\r\n' + rows).encode())
    )
    assert fit == {
        "quoted": 'one, "two"\r\nthree',
        "empty": None,
        "quoted, empty": "",
        "all": " spaces ",
        "no line end": "last",
    }
    assert faults == []


def test_columns_go_by_name_in_every_file(spark, tmp_path):
    root = tmp_path / "x.csv"
    put(root / "a.csv", HEADER + GOOD)
    put(root / "b.csv", "passage,query,passage_id,query_id\nA seal.,q,b,2\n")
    put(root / "c.csv", HEADER)
    put(root / "d.csv", "")
    assert read(spark, root)[0] == {"good": "A gasket is a seal.", "b": "A seal."}
    put(root / "0.csv", "9,9,what is a gasket,A seal.\n8,8,what is a gasket,A seal.\n")
    with pytest.raises(InputError, match=r"0\.csv has no header: its first line is '9, 9, what"):
        read(spark, root)
    put(root / "0.csv", "query_id,passage_id,query,passage,source\n9,9,q,p,s\n")
    with pytest.raises(InputError, match=r"0\.csv has the columns query_id, .*source, and a\.csv has"):
        read(spark, root)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("query_id,query_id,query,passage\n1,1,q,p\n", "x.csv has the column query_id twice"),
        ((HEADER + GOOD).encode("utf-16"), "x.csv is UTF-16 and not UTF-8"),
        ((HEADER + GOOD).encode("utf-16-le"), "x.csv is UTF-16 and not UTF-8"),
        ((HEADER + GOOD).replace("\n", "\r"), "x.csv ends its lines with carriage returns alone"),
        (
            'query_id,"passage_id,query,passage\n1,1,q,p\n',
            "x.csv line 1: a quote opens and never closes, in the header",
        ),
        ("", "x.csv has no row: it is empty"),
        ("\n\n", "x.csv has no row: it is empty"),
        (HEADER, "x.csv has no row: there is nothing to score"),
        ("Query_ID,passage_id,query,passage\n1,1,q,p\n", "lacks the columns query_id; it has Query_ID"),
        ("query_id,Query_ID,passage_id,query,passage\n1,1,1,q,p\n", "which Spark cannot tell apart"),
        (HEADER.replace(",", ";") + GOOD, "x.csv has semicolons between its columns"),
        (gzip.compress(HEADER.encode(), mtime=0), "x.csv is no text but packed"),
    ],
)
def test_a_file_that_is_refused(spark, tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read(spark, put(tmp_path / "x.csv", content))


def test_texts_that_are_not_utf_8(spark, tmp_path):
    rows = "1,2,le café,Le café est une boisson.\n" + GOOD + "1,été,q,p\n"
    fit, faults = read(spark, put(tmp_path / "latin1.csv", (HEADER + rows).encode("latin-1")))
    assert fit == {"good": "A gasket is a seal."}
    assert faults == [
        ("1", "2", "invalid_text", "latin1.csv line 2: query is not UTF-8"),
        ("1", None, "invalid_text", "latin1.csv line 4: passage_id is not UTF-8"),
    ]
    kept = read(spark, put(tmp_path / "marks.csv", HEADER + "1,a,q,\ufffd was there\n"))[0]
    assert kept == {"a": "\ufffd was there"}


def test_the_header_again(spark, tmp_path):
    fit, faults = read(spark, put(tmp_path / "cat.csv", HEADER + GOOD + HEADER + GOOD.replace("good", "more")))
    assert len(fit) == 2
    assert faults[0][2:] == ("malformed_row", "cat.csv line 3: the header again")


TEXTS = ["a\\b, c", 'x\\"y', "ends, with\\", 'He said "hi", then left.', "new\nline", "", '"', "\\,", 'a",', '\\\\"']


@pytest.mark.parametrize("escape", ["\\", '"'])
def test_what_spark_writes(spark, tmp_path, escape):
    path = str(tmp_path / "spark.csv")
    rows = [("1", str(number), "q", text) for number, text in enumerate(TEXTS)]
    frame = spark.createDataFrame(rows, "query_id string, passage_id string, query string, passage string")
    frame.coalesce(1).write.options(header=True, escape=escape).csv(path)
    assert read(spark, path) == ({str(number): text for number, text in enumerate(TEXTS)}, [])


def test_backslashes_of_a_file_of_no_telling_name(spark, tmp_path):
    path = put(tmp_path / "x.csv", HEADER + '1,a,q,"one \\", two"\n1,b,q,"C:\\"\n')
    fit, faults = read(spark, path)
    assert fit == {"b": "C:\\"}
    assert [fault[1] for fault in faults] == ["a"]
    assert read(spark, path, csv_escape="backslash")[0] == {"a": 'one ", two'}
    assert read(spark, put(path, HEADER + '1,a,q,"say \\"hi\\""\n'))[0] == {"a": 'say "hi"'}
    assert read(spark, put(path, HEADER + '1,a,q,"C:\\""x"""\n'))[0] == {"a": 'C:\\"x"'}


def test_files_that_are_packed(spark, tmp_path):
    root = tmp_path / "x.csv"
    content = [(HEADER + GOOD.replace("good", name)).encode() for name in "abcd"]
    put(root / "a.csv", content[0])
    put(root / "b.csv.gz", gzip.compress(content[1]))
    put(root / "c.csv.bz2", bz2.compress(content[2]))
    with pa.CompressedOutputStream(str(root / "d.csv.zst"), "zstd") as stream:
        stream.write(content[3] + b"1,x\n")
    fit, faults = read(spark, root)
    assert sorted(fit) == ["a", "b", "c", "d"]
    assert faults == [("1", "x", "malformed_row", "d.csv.zst line 3: 2 fields and not 4")]
    lines = json.dumps({"query_id": 1, "passage_id": "j", "query": "q", "passage": "p"}).encode()
    assert read(spark, put(tmp_path / "x.jsonl.gz", gzip.compress(lines)))[0] == {"j": "p"}
    with pytest.raises(InputError, match=r"cannot read .*cut\.csv\.gz"):
        read(spark, put(tmp_path / "cut.csv.gz", gzip.compress(content[1] * 50)[:-20]))


def test_top1000_of_ms_marco(spark, tmp_path):
    rows = '1\t7\twhat is a gasket\t"The gasket", he said, is a 3" seal.\n1\t8\twhat is a gasket\t"The moon\n'
    path = put(tmp_path / "top1000.dev.tsv", rows)
    fit, faults = read(spark, path, columns="query_id,passage_id,query,passage")
    assert (fit, faults) == ({"7": '"The gasket", he said, is a 3" seal.', "8": '"The moon'}, [])
    with pytest.raises(InputError, match=r"has no header.* --columns query_id,passage_id,query,passage"):
        read(spark, path)
    with pytest.raises(InputError, match="has a header: leave --columns out"):
        read(spark, put(path, HEADER.replace(",", "\t") + rows), columns="query_id,passage_id,query,passage")
    with pytest.raises(InputError, match=r"--columns is for \.csv and \.tsv files"):
        read(spark, put(tmp_path / "x.jsonl", "{}"), columns="query_id")
    with pytest.raises(ConfigError, match="--columns is 'a,,b'"):
        FileOptions(columns="a,,b")


def test_quotes_of_a_tsv(spark, tmp_path):
    header = HEADER.replace(",", "\t")
    path = put(tmp_path / "x.tsv", header + '1\ta\tq\t"a ""word"" more"\n')
    with pytest.raises(InputError, match=r"may quote its fields.*--csv-escape doubled, backslash or none"):
        read(spark, path)
    assert read(spark, path, csv_escape="doubled")[0] == {"a": 'a "word" more'}
    assert read(spark, path, csv_escape="none")[0] == {"a": '"a ""word"" more"'}
    assert read(spark, put(path, header + '1\ta\tq\tthe 3" pipe, "ok"\n'))[0] == {"a": 'the 3" pipe, "ok"'}


def test_another_way_of_reading_is_another_input(spark, tmp_path):
    table = Table(spark, str(put(tmp_path / "x.csv", GOOD)))
    names = "query_id,passage_id,query,passage"
    versions = {
        read_pinned(spark, table, None, "", FileOptions(columns))[1] for columns in (names, f"{names[:-7]}text")
    }
    assert len(versions) == 2


def test_json_lines(spark, tmp_path, capsys):
    good = {"query_id": 1, "passage_id": "a", "query": "q", "passage": "p", "more": {"x": [1]}}
    bad = {
        "object": json.dumps({**good, "passage": {"text": "p"}}),
        "number": json.dumps({**good, "passage": 5}),
        "half": json.dumps({**good, "passage": "a \ud83d seal"}),
        "fraction": json.dumps({**good, "query_id": 1.5}),
        "array": "[1]",
        "broken": json.dumps(good)[:-5],
        "nan": '{"query_id": NaN}',
        "twice": '{"query_id": 1, "query_id": 2}',
    }
    path = put(tmp_path / "x.jsonl", "\n".join(["\ufeff" + json.dumps(good), "", *bad.values()]) + "\r\n")
    fit, faults = read(spark, path)
    assert fit == {"a": "p"}
    codes = {fault[3].partition(":")[0]: fault for fault in faults}
    assert len(codes) == len(bad)
    told = [codes[f"x.jsonl line {number}"] for number in range(3, 11)]
    assert told[0] == ("1", "a", "malformed_row", "x.jsonl line 3: passage is an object; it must be text")
    assert told[1][3] == "x.jsonl line 4: passage is a number; it must be text"
    assert told[2][2:] == ("invalid_text", "x.jsonl line 5: passage has half of a character (a lone surrogate)")
    assert told[3][3] == "x.jsonl line 6: query_id is a number; it must be text or a whole number"
    assert told[4][3] == "x.jsonl line 7: is an array and not an object"
    assert told[5][3].startswith("x.jsonl line 8: is not JSON (")
    assert told[6][3] == "x.jsonl line 9: is not JSON (NaN is no number)"
    assert told[7][3] == "x.jsonl line 10: has query_id twice"
    assert "1 empty line left out" in capsys.readouterr().err
    with pytest.raises(InputError, match="is a JSON array: write one object a line"):
        read(spark, put(tmp_path / "y.json", "[{}]"))


def test_a_row_that_is_longer_than_what_is_held(spark, tmp_path, monkeypatch):
    from mkdm.text import delimited

    monkeypatch.setattr(delimited, "MOST_BYTES", 100)
    lines = [b'a,"open', *[b"x" * 30] * 5, b'y"', b"b,c"]
    found = list(delimited.records(lines, b",", "doubled"))
    assert (found[0].line, found[0].fault) == (1, "a quote opens and does not close within 0 MiB")
    assert [(one.line, one.fields) for one in found[-1:]] == [(8, [b"b", b"c"])]
    assert [one.line for one in found] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("chunks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_row_of_a_file_is_scored_or_rejected(spark, warehouse, student_folder, tmp_path, chunks):
    rows = GOOD + "1,few\n" + GOOD.replace("A gasket", "Another") + '1,good,q,"open\n,k,q,p\n'
    path = put(tmp_path / "pairs.csv", HEADER + rows)
    config = ScoreConfig(
        model=student_folder,
        warehouse=warehouse.root,
        pairs=str(path),
        precision="fp32",
        chunks=chunks,
        max_reject_rate=1,
    )
    report = run(spark, config)
    totals = report.totals
    assert (totals.rows_read, totals.rows_written, totals.rows_rejected) == (5, 1, 4)
    rejects = warehouse.table("rejected_pairs").read()
    found = {row.error_code: row["count"] for row in rejects.groupBy("error_code").count().collect()}
    assert found == {"malformed_row": 2, "duplicate_key": 1, "null_key": 1}
    message = rejects.where(F.col("passage_id") == "few").first()["error_message"]
    assert message == "pairs.csv line 3: 2 fields and not 4"


def test_inputs_of_a_build(spark, tmp_path):
    put(tmp_path / "queries.csv", "query_id,query,frequency\n1,what is a gasket,5\n2,why\n3,how,10\n")
    queries = read_input("queries", Table(spark, str(tmp_path / "queries.csv")), None)
    coded = {row.query_id: row for row in normalised(queries.rows).collect()}
    assert (coded["1"].error_code, coded["1"].frequency) == (None, 5)
    assert coded["2"].error_code == "malformed_row"
    assert coded["2"].error_message == "queries.csv line 3: 2 fields and not 3"
    put(tmp_path / "documents.jsonl", '{"doc_id": 1, "text": "A seal."}\n{"doc_id": 2, "text": {"html": "x"}}\n{')
    documents = read_input("documents", Table(spark, str(tmp_path / "documents.jsonl")), None)
    found = with_faults(documents.rows, "documents", *text_faults("text", 1_000)).orderBy("doc_id").collect()
    assert [(row.doc_id, row.error_code) for row in found] == [
        (None, "malformed_row"),
        ("1", None),
        ("2", "malformed_row"),
    ]
    put(tmp_path / "top.tsv", "1\t7\t0\n1\t8\n")
    options = FileOptions("query_id,doc_id,doc_rank")
    ranked = read_input("query_documents", Table(spark, str(tmp_path / "top.tsv")), None, options)
    found = with_faults(ranked.rows, "query_documents").orderBy("doc_id").collect()
    assert [(row.doc_id, row.error_code) for row in found] == [("7", None), ("8", "malformed_row")]
    (tmp_path / "queries.csv").write_text("query_id,query\n")
    with pytest.raises(InputError, match=r"queries\.csv changed while it was read"):
        queries.require_unchanged()


def test_golden_labels_at_fault_are_refused(spark, tmp_path):
    table = Table(spark, str(put(tmp_path / "golden.csv", "query_id,passage_id,golden_label\n1,1,1\n1,2\n")))
    with pytest.raises(InputError, match=r"1 row at fault, the first: golden\.csv line 3: 2 fields and not 3"):
        read_pinned(spark, table, None, "")
