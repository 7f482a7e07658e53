"""After any sequence of changes to the pairs, the incremental chain holds what one full run of them gives.

A sequence is the life of one lane of the table, see changing_pairs.py: LANES of them to a table, with the runs in
common. What is compared with is `transform` over all rows at each run, and a whole run beside it at the end.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from changing_pairs import PASSAGES, SCHEMA, ChangingPairs, in_lanes, keys, rows, written
from deltalake import DeltaTable as Reader
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from killing import Killed, killed_at
from seeded_lives import live_once

from jobs.engine import Ledger, Warehouse, chain_of
from jobs.label import LabelConfig, _versioned
from jobs.label import run as label
from jobs.label import transform as label_rows
from jobs.rank import RankConfig
from jobs.rank import run as rank
from jobs.score import ScoreConfig, run, transform
from mkdm.errors import InputError

LANES = 12
COMMITS = 14
"""A run of one chunk makes about so many."""


RUNS = ("none", "none", "run", "run", "again", "killed", "killed", "whole", "earlier")
THEN = {"what": st.sampled_from(RUNS), "commit": st.integers(0, 2 * COMMITS)}
"""What runs after a change, and where it is killed, if that is drawn."""


class Life(RuleBasedStateMachine):
    """A table of pairs, its changes, and the runs that follow it."""

    names = ("scores", "rejected_pairs")
    made: Any
    """Made by each test: spark, tables, model, folder and monkeypatch."""

    @initialize(pairs=in_lanes(LANES, rows))
    def begin(self, pairs):
        assume(len(pairs) >= LANES)
        spark, tables, model, folder, self.monkeypatch = self.made
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tables, folder)
        shutil.rmtree(folder / "pairs")
        self.spark, self.warehouse, self.steps = spark, Warehouse(spark, str(folder)), 0
        self.pairs = ChangingPairs(self.warehouse.table("pairs"), pairs)
        self.config = {"model": model, "warehouse": str(folder), "precision": "fp32", "max_reject_rate": 1.0}
        self.score()

    def score(self, version=None, **changes):
        """Run, and compare with all of that version scored at once."""
        rows = self.pairs.rows if version is None else self.pairs.versions[version]
        try:
            runs = self.run(version, changes)
        except InputError:  # of a table without rows, where no run is to take any out of
            if rows:
                raise
            return
        self.compare(written(self.warehouse.root, self.names, runs), rows)

    def run(self, version, changes):
        """The runs whose rows together are the scores of that version."""
        config = ScoreConfig(**(self.config | {"incremental": True, "pairs_version": version} | changes))
        report = run(self.spark, config)
        return chain_of(Ledger(self.warehouse.table("runs")), report.run.run_id)

    def truth(self, pairs):
        """All pairs scored at once."""
        return transform(pairs, ScoreConfig(**self.config), 1)

    def compare(self, got, rows):
        counted, scores = got
        wanted = [row.asDict() for row in self.truth(self.spark.createDataFrame(rows, SCHEMA)).collect()]
        by_key = {(row["query_id"], row["passage_id"]): row for row in wanted if row["error_code"] is None}
        expected = Counter((*key, row.get("content_hash"), None) for key, row in by_key.items())
        expected.update(
            (row["query_id"], row["passage_id"], None, row["error_code"]) for row in wanted if row["error_code"]
        )
        assert counted == expected
        assert counted.total() == len(rows)
        assert scores == pytest.approx({key: row["score"] for key, row in by_key.items()}, abs=1e-5)

    def then(self, what, commit):
        """What runs after a change."""
        self.steps += 1
        if what == "killed":
            try:
                with killed_at(commit, self.monkeypatch):
                    self.score()
            except Killed:
                pass
        elif what == "earlier":
            known = sorted(version for version, there in self.pairs.versions.items() if there)
            self.score(known[commit % len(known)])
        elif what != "none":
            for _ in range(2 if what == "again" else 1):
                self.score(incremental=what != "whole", chunks=1 + commit % 2 if what == "whole" else "auto")

    @rule(new=in_lanes(LANES, rows), **THEN)
    def append(self, new, what, commit):
        self.pairs.append(new)
        self.then(what, commit)

    @rule(places=st.lists(st.integers(0, 99), min_size=1, max_size=LANES), **THEN)
    def append_copies(self, places, what, commit):
        self.pairs.append_copies(places)
        self.then(what, commit)

    @rule(gone=in_lanes(LANES, keys, 1), passage=st.sampled_from((None, PASSAGES[0])), **THEN)
    def delete(self, gone, passage, what, commit):
        self.pairs.delete(gone, passage)
        self.then(what, commit)

    @rule(changed=in_lanes(LANES, keys, 1), passage=st.sampled_from(PASSAGES), **THEN)
    def update(self, changed, passage, what, commit):
        self.pairs.update(changed, passage)
        self.then(what, commit)

    @rule(new=in_lanes(LANES, rows), **THEN)
    def merge(self, new, what, commit):
        self.pairs.merge(new)
        self.then(what, commit)

    @rule(kind=st.sampled_from(("distinct", "distinct", "same", "first", "none")), **THEN)
    def overwrite(self, kind, what, commit):
        distinct = list(dict.fromkeys(self.pairs.rows))
        first = list({row[:2]: row for row in reversed(self.pairs.rows)}.values())
        self.pairs.overwrite({"distinct": distinct, "same": self.pairs.rows, "first": first, "none": []}[kind])
        self.then(what, commit)

    @rule(place=st.integers(0, 99), **THEN)
    def restore(self, place, what, commit):
        self.pairs.restore(place)
        self.then(what, commit)

    @rule(how=st.sampled_from(("nothing", "files", "types")), **THEN)
    def rewrite(self, how, what, commit):
        {"nothing": lambda: self.pairs.append([]), "files": self.pairs.optimise, "types": self.pairs.retype}[how]()
        self.then(what, commit)

    def teardown(self):
        if not getattr(self, "steps", 0):
            return
        self.pairs.check()
        self.score()
        if self.pairs.rows:
            self.beside(self.warehouse.root)

    def beside(self, root):
        """A whole run in tables of its own leaves the same, and `rank` publishes the same of both."""
        beside = {name: f"{root}/whole_{name}" for name in ("scores", "rejected_pairs", "runs")}
        run(self.spark, ScoreConfig(**(self.config | beside)))
        self.compare(written(root, ("whole_scores", "whole_rejected_pairs"), None), self.pairs.rows)
        rank(self.spark, RankConfig(warehouse=root, top_k=1))
        place = f"{root}/whole_ranked_passages"
        rank(self.spark, RankConfig(root, top_k=1, scores=beside["scores"], runs=beside["runs"], ranked_passages=place))
        published, wanted = (
            sorted(
                (row["query_id"], row["rank"], row["passage_id"]) for row in Reader(path).to_pyarrow_table().to_pylist()
            )
            for path in (f"{root}/ranked_passages", place)
        )
        assert published == wanted


class LabelLife(Life):
    """The same for `mkdm label`, whose runs are over all pairs of a version: each teacher's labels are of that one."""

    names = ("soft_labels", "rejected_pairs")

    def label_config(self, **changes):
        root, zoo = self.warehouse.root, Path(self.warehouse.root).parent / "zoo.yaml"
        zoo.write_text(f"teachers: [{{id: one, model: {self.config['model']}, precision: fp32}}]")
        return LabelConfig(zoo=str(zoo), warehouse=root, max_reject_rate=1.0, **changes)

    def run(self, version, changes):
        chunks = changes.get("chunks", "auto")
        label(self.spark, self.label_config(pairs_version=version, chunks=chunks))
        newest = version if version is not None else self.pairs.table.latest_version()
        pinned = {"pairs": f"{self.pairs.table.table_id()}@{newest}"}
        states = Ledger(self.warehouse.table("runs")).states(job="label", state="complete")
        return [state.run.run_id for state in states if state.run.input_versions == pinned]

    def truth(self, pairs):
        config = self.label_config()
        return label_rows(pairs, config, _versioned(config), 1).drop("content_hash")  # which soft_labels has not

    def beside(self, root):
        """Nothing: it would be the same run again."""


def live(life, number, *made):
    """One life of this seed; without a first one that would be the simplest."""
    print(f"seed {number}: {LANES} sequences")
    live_once(life, number, 8 if number else 5, made)


def seeds(most: int) -> Any:
    """So many sequences of their own, each told by its number."""
    return pytest.mark.parametrize("number", range(most), ids=lambda number: f"seed{number}")


@pytest.mark.slow
@seeds(26)
def test_scores_after_any_sequence_of_changes(spark, tables, student_folder, tmp_path, monkeypatch, number):
    live(Life, number, spark, tables, student_folder, tmp_path / "warehouse", monkeypatch)


@seeds(9)
@pytest.mark.slow
def test_labels_after_any_sequence_of_changes(spark, tables, student_folder, tmp_path, monkeypatch, number):
    live(LabelLife, number, spark, tables, student_folder, tmp_path / "warehouse", monkeypatch)
