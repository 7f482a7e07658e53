import re
from pathlib import Path
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE

from jobs import demo
from mkdm.errors import InputError
from mkdm.model.folder import content_files, model_version


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """The shipped sample with two of five of its queries, for the time that scoring takes."""
    folder = tmp_path_factory.mktemp("sample")
    for name in ("pairs.parquet", "golden_labels.parquet"):
        table = pq.read_table(SAMPLE / name)
        taken = [crc32(query_id.encode()) % 5 < 2 for query_id in table["query_id"].to_pylist()]
        pq.write_table(table.filter(pa.array(taken)), folder / name)
    (folder / "student").symlink_to(SAMPLE / "student")
    return folder


@pytest.fixture(scope="module")
def printed(spark, sample, tmp_path_factory) -> str:
    """What `mkdm demo` prints."""
    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "WAREHOUSE", tmp_path_factory.mktemp("demo") / "warehouse")
    lines: list[str] = []
    patch.setattr("builtins.print", lambda *text, **_: lines.append(" ".join(map(str, text))))
    try:
        demo.main(["--sample", str(sample)])
    finally:
        patch.undo()
    return "\n".join(lines)


def quality(printed: str) -> dict[str, list[float]]:
    """By source: pairs, golden, ACC, AUC, AUC of word overlap."""
    rows = re.findall(r"^ *(amazon|medquad|newwiki|squad|all) +(.*)$", printed, re.MULTILINE)
    return {source: [float(number) for number in numbers.split()] for source, numbers in rows}


def test_all_of_the_sample_is_scored(printed, sample):
    table = quality(printed)
    pairs = pq.read_metadata(sample / "pairs.parquet").num_rows
    assert pairs > 1000
    assert sorted(table) == ["all", "amazon", "medquad", "newwiki", "squad"]
    assert table["all"][0] == sum(table[source][0] for source in table if source != "all") == pairs
    assert re.search(rf"scored +{pairs:,}\n", printed)
    assert re.search(r"rejected +0\n", printed)
    assert re.search(r"model loads +1\n", printed)


@pytest.mark.parametrize("source", ["all", "medquad"])
def test_shipped_student_beats_word_overlap(printed, source):
    _, _, _, auc, overlap = quality(printed)[source]
    assert auc > overlap


def test_three_queries_with_their_passages_in_order_of_score(printed):
    shown = printed.split("Quality on the sample")[0]
    queries = re.findall(r"^(?! ).+  \((\w+)\)$", shown, re.MULTILINE)
    assert len(queries) == len(set(queries)) == 3
    for block in shown.split("  score  golden  passage")[1:]:
        rows = re.findall(r"^ +(0\.\d{3}) +([01])  \S", block, re.MULTILINE)
        scores = [float(score) for score, _ in rows]
        assert len(rows) >= 4
        assert scores == sorted(scores, reverse=True)
        assert any(label == "1" for _, label in rows)


def test_shipped_student_is_whole_and_small():
    student = SAMPLE / "student"
    assert len(model_version(student)) == 16
    assert sum(path.stat().st_size for path in content_files(student)) < 40e6


def test_missing_sample(spark, tmp_path):
    with pytest.raises(InputError, match=r"lacks pairs\.parquet, golden_labels\.parquet, student"):
        demo.run(spark, demo.DemoConfig(sample=str(tmp_path)))
