"""Lines of CSV taken apart: what Python's own writer writes comes back, and no line is lost, whatever is wrong."""

import csv
import io
import random

from mkdm.text.delimited import records


def test_what_a_csv_writer_writes_comes_back():
    random.seed(5)
    for end, quoting in [("\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL)] * 300:
        rows = [
            ["".join(random.choices('ab",\n\r\\ é\t', k=random.randrange(6))) + "." for _ in range(4)] for _ in "12"
        ]
        told = io.StringIO()
        csv.writer(told, lineterminator=end, quoting=quoting).writerows(rows)
        found = list(records(told.getvalue().encode().split(b"\n")[:-1], b",", "doubled"))
        assert [record.fault for record in found] == ["", ""]
        assert [[(part or b"").decode() for part in record.fields] for record in found] == rows


def test_no_line_is_lost():
    random.seed(6)
    for number in range(5000):
        lines = [bytes(random.choices(b'a",\\', k=random.randrange(7))) for _ in range(random.randrange(1, 8))]
        found = list(records(lines, b",", ("doubled", "backslash", "none")[number % 3]))
        begins = [record.line for record in found]
        assert begins == sorted(set(begins))
        assert begins[0] == 1
        for record, following in zip(found, [*begins[1:], len(lines) + 1], strict=True):
            if record.fault or record.blank:
                assert following == record.line + 1, "a row at fault takes no other line with it"
            text = b"\n".join(lines[record.line - 1 : following - 1])
            assert record.fault or sum(len(part or b"") for part in record.fields) <= len(text)


def test_line_numbers_go_on_after_rows_of_several_lines():
    lines = [b'"a', b'b",c', b"", b"d,e", b'"f', b"g"]
    assert [(record.line, record.fields, record.fault) for record in records(lines, b",", "doubled")] == [
        (1, [b"a\nb", b"c"], ""),
        (3, [], ""),
        (4, [b"d", b"e"], ""),
        (5, [], "a quote opens and never closes"),
        (6, [b"g"], ""),
    ]
