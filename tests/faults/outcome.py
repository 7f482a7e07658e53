"""What a run left in its tables, to compare with what an undisturbed run leaves."""

from typing import NamedTuple

from jobs.engine import Warehouse


class Outcome(NamedTuple):
    """All rows of the outputs, without run and time: keys, scores bit for bit and hashes; keys and codes of rejects."""

    scores: list[tuple]
    rejects: list[tuple]


def outcome(warehouse: Warehouse) -> Outcome:
    """Read the outputs of a warehouse. No key comes twice, which this asserts."""
    columns = {
        "scores": ("query_id", "passage_id", "score", "content_hash", "model_version"),
        "rejected_pairs": ("query_id", "passage_id", "error_code"),
    }
    rows = {name: warehouse.table(name).read().select(*chosen).collect() for name, chosen in columns.items()}
    keys = [row[:2] for row in rows["scores"]]
    assert len(keys) == len(set(keys))
    return Outcome(*(sorted(map(tuple, some), key=str) for some in rows.values()))
