"""What is scored already: the key-value view that `mkdm follow` keeps, looked up by texts and by ids.

A query is known by its query_id, or by its normalised text where the view has the queries. A passage is known by its
passage_id, or by its text: `mkdm build-pairs` ends each passage_id with a hash of it.
"""

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

from mkdm.errors import InputError
from mkdm.serving.rerank_request import Document
from mkdm.text import normalise_query

MAX_QUERY = 2_000
"""Characters of a query that is normalised: the time of that may grow with the square, and no built one is longer."""
_KEY = re.compile(r":([0-9a-f]{16})(?:\.\d+)?$")


class RankedView:
    """Reads a view; rows of another model than the one that is served are not seen.

    Args:
        path: the SQLite file of `mkdm follow --view`.
        model_version: of the served model.

    Raises:
        InputError: there is no such file, or it is no view.
    """

    def __init__(self, path: str, model_version: str) -> None:
        if not Path(path).is_file():
            raise InputError(f"there is no view at {path}: make one with mkdm follow --view {path}")
        self.path, self._version, self._lock = path, model_version, Lock()
        uri = f"file:{quote(str(Path(path).resolve()))}?mode=ro"
        self._database = sqlite3.connect(uri, uri=True, timeout=1, check_same_thread=False)
        try:
            self._ask("SELECT passage_id, score, model_version FROM ranked LIMIT 1")
            self._ask("SELECT version FROM applied")
        except sqlite3.DatabaseError as error:
            self.close()
            raise InputError(f"{path} is no view of mkdm follow ({error}): give another --view") from error

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @property
    def version(self) -> int:
        """The version of `ranked_passages` that the view has; -1 before the first."""
        return int((self._ask("SELECT version FROM applied") or [(-1,)])[0][0])

    @property
    def normalises(self) -> bool:
        """Whether queries are known by text, as built pairs have them: then normalised ones are what was scored."""
        return bool(self._ask("SELECT 1 FROM sqlite_master WHERE name = 'queries'")) and bool(
            self._ask("SELECT 1 FROM queries LIMIT 1")
        )

    def models(self) -> list[str]:
        """The model versions of some rows of the view."""
        return [
            str(row[0]) for row in self._ask("SELECT DISTINCT model_version FROM (SELECT * FROM ranked LIMIT 1000)")
        ]

    def scores(self, query: str, query_id: str | None, documents: Sequence[Document]) -> dict[int, float]:
        """By place, the scores of the documents whose pair with the query is in the view.

        Args:
            query: its text, normalised here.
            query_id: the client's; a query without one is looked for by its text.

        Raises:
            sqlite3.Error: the file cannot be read now.
        """
        if query_id is None and len(query) <= MAX_QUERY:
            with suppress(sqlite3.OperationalError):  # a view without the queries
                rows = self._ask("SELECT query_id FROM queries WHERE query = ?", normalise_query(query))
                query_id = str(rows[0][0]) if rows else None
        if query_id is None:
            return {}
        rows = self._ask("SELECT passage_id, score, model_version FROM ranked WHERE query_id = ?", query_id)
        by_id = {str(passage): float(score) for passage, score, version in rows if version == self._version}
        if not by_id:
            return {}
        by_text = {found[1]: score for passage, score in by_id.items() if (found := _KEY.search(passage))}
        known = {}
        for place, one in enumerate(documents):
            key = hashlib.blake2b(one.text.encode(), digest_size=8).hexdigest()
            if one.passage_id is None:
                score = by_text.get(key)
            else:  # an id that tells its text's hash stands for that text alone
                told = _KEY.search(one.passage_id)
                score = by_id.get(one.passage_id) if told is None or told[1] == key else None
            if score is not None:
                known[place] = score
        return known

    def _ask(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()
