"""What scores are held against: baselines that need no model."""

from collections.abc import Sequence

import bm25s
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from mkdm.text import words


def word_overlap(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
    """The baseline that needs no model: the share of a query's distinct words that occur in the passage.

    Args:
        queries: n texts.
        passages: n texts.

    Returns:
        float32[n] in [0, 1]; 0 for a query without words.
    """
    pairs = [(set(words(query)), set(words(passage))) for query, passage in zip(queries, passages, strict=True)]
    return np.array([len(query & passage) / max(1, len(query)) for query, passage in pairs], dtype=np.float32)


def bm25(queries: Sequence[str], passages: Sequence[str], k1: float = 1.2, b: float = 0.75) -> NDArray[np.float32]:
    """The BM25 of each pair (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009).

    Document frequencies and the average length are those of the distinct passages given. A word of the query counts
    once; its weight is log(1 + (N - df + 0.5) / (df + 0.5)), as in Lucene, so that none counts against a passage. bm25s
    gives each word's part in each passage, and what stands here sums those of a pair: it has no call for pairs.

    Args:
        queries: n texts.
        passages: n texts.
        k1: how soon a repeated word counts no more.
        b: how much longer passages count less, in [0, 1].

    Returns:
        float32[n], not negative; 0 where no word of the query occurs in the passage.
    """
    passage_rows = {passage: row for row, passage in enumerate(dict.fromkeys(passages))}
    columns: dict[str, int] = {}
    corpus = [[columns.setdefault(word, len(columns)) for word in words(passage)] for passage in passage_rows]
    if not columns:
        return np.zeros(len(passages), dtype=np.float32)
    index = bm25s.BM25(method="lucene", k1=k1, b=b, dtype="float64")
    index.index(bm25s.tokenization.Tokenized(corpus, columns), create_empty_token=False, show_progress=False)
    parts = tuple(index.scores[name] for name in ("data", "indices", "indptr"))
    weights = csc_matrix(parts, shape=(len(passage_rows), len(columns))).tocsr()
    query_rows = {query: row for row, query in enumerate(dict.fromkeys(queries))}
    known = [sorted({columns[word] for word in words(query) if word in columns}) for query in query_rows]
    starts = np.cumsum([0, *map(len, known)])
    places = np.array([place for row in known for place in row], dtype=np.int64)
    asked = csr_matrix((np.ones(len(places)), places, starts), shape=(len(query_rows), len(columns)))
    pairs = asked[[query_rows[query] for query in queries]].multiply(weights[[passage_rows[one] for one in passages]])
    return np.asarray(pairs.sum(axis=1), dtype=np.float32).ravel()
