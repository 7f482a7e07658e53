"""After any sequence of changes to queries, documents and results, a build leaves what a first build makes."""

import shutil
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from killing import Killed, killed_at
from query_logs import sample_log
from seeded_lives import live_once

from jobs.build_pairs import run
from jobs.engine import TABLES, Warehouse
from jobs.funnel import BuildPairsConfig

LOG = sample_log(queries=6, documents=5)
QUERIES, DOCUMENTS = [f"q{i:02}" for i in range(8)], [f"d{i}" for i in range(7)]
PARAGRAPHS = [paragraph for text in LOG.documents.values() for paragraph in text.split("\n\n")]
WORDS = [*(query for query, _ in LOG.queries.values()), "What is a gasket?", "what  is a GASKET?", "", None]
COMMITS = 30
"""A build makes about so many."""
BUILT = [name for name, kind in TABLES.items() if kind.built]
SETTINGS = ({}, {"duplicates": "merge"}, {"boilerplate_documents": 2}, {"documents_per_query": 1})

query = st.tuples(st.sampled_from(WORDS), st.sampled_from((1, 2, 40, None)))
document = st.lists(st.sampled_from([*PARAGRAPHS, PARAGRAPHS[0], ""]), max_size=4).map("\n\n".join)


def changed(keys: Any, values: Any) -> Any:
    """Some keys with a new row, or without any."""
    return st.dictionaries(keys, st.one_of(st.none(), values, values), min_size=1, max_size=4)


class Life(RuleBasedStateMachine):
    """A log, its changes, and the builds that follow it."""

    made: Any
    """Made by each test: spark, tokenizer, folder and monkeypatch."""

    @initialize(chosen=st.sampled_from(SETTINGS), drawn=st.integers(0, 10**6))
    def begin(self, chosen, drawn):
        assume(drawn)  # Hypothesis tries the least of all lives first
        self.spark, tokenizer, self.folder, self.monkeypatch = self.made
        shutil.rmtree(self.folder, ignore_errors=True)
        self.chosen = {"tokenizer": tokenizer, "passage_tokens": 64, "segments": "all", "max_reject_rate": 1.0} | chosen
        self.log = LOG
        self.warehouse = self.build("grown")

    def build(self, name):
        """Write the inputs as they are now into a warehouse, and build its pairs."""
        warehouse = Warehouse(self.spark, str(self.folder / name))
        self.log.write(self.spark, warehouse)
        run(self.spark, BuildPairsConfig(warehouse=warehouse.root, **self.chosen))
        return warehouse

    def then(self, killed):
        if killed is None:
            return
        try:
            with killed_at(killed, self.monkeypatch):
                self.build("grown")
        except Killed:
            pass

    _killed = st.one_of(st.none(), st.integers(0, 2 * COMMITS))

    @rule(queries=changed(st.sampled_from(QUERIES), query), killed=_killed)
    def queries_change(self, queries, killed):
        self.log = self.log.but(queries=queries)
        self.then(killed)

    @rule(documents=changed(st.sampled_from(DOCUMENTS), document), killed=_killed)
    def documents_change(self, documents, killed):
        self.log = self.log.but(documents=documents)
        self.then(killed)

    @rule(
        ranked=changed(st.tuples(st.sampled_from(QUERIES), st.sampled_from(DOCUMENTS)), st.integers(0, 3)),
        killed=_killed,
    )
    def results_change(self, ranked, killed):
        self.log = self.log.but(query_documents=ranked)
        self.then(killed)

    @rule(killed=_killed)
    def all_comes_back(self, killed):
        self.log = LOG
        self.then(killed)

    def teardown(self):
        if not hasattr(self, "warehouse") or not (self.log.queries and self.log.documents):
            return
        grown, fresh = self.build("grown"), self.build("fresh")
        for name in BUILT:
            there, wanted = (Counter(map(tuple, one.table(name).read().collect())) for one in (grown, fresh))
            assert there == wanted, name


@pytest.mark.slow
@pytest.mark.parametrize("number", range(25), ids=lambda number: f"seed{number}")
def test_any_sequence_of_changes(spark, student_folder, tmp_path, monkeypatch, number):
    print(f"seed {number}")
    live_once(Life, number, 7 if number else 4, (spark, student_folder, tmp_path, monkeypatch))
