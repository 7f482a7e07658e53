"""`mkdm serve` as a process, asked by another one: scores, the view, what is refused, a full queue, and its end."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from rerank_server import RerankServer

from jobs.follow import View
from mkdm.errors import ConfigError, InputError, ModelError
from mkdm.model import model_version
from mkdm.scoring import Scorer
from mkdm.serving import RankedView, ServingSettings, serve
from mkdm.serving.rerank_request import Document
from mkdm.text import PassageCutter, normalise_query

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
TORCH = ("--backend", "torch", "--precision", "fp32")
KNOWN = 0.8125
"""A score that no model gave."""


@pytest.fixture(scope="module")
def scorer(student_folder) -> Scorer:
    return Scorer.load(student_folder, "torch", "fp32")


@pytest.fixture(scope="module")
def built(tokenizers, texts) -> list[tuple[str, str]]:
    """Passages of the sample with the ids that a build would give them."""
    cutter = PassageCutter(tokenizers["bert"], 400)
    cut = [(place, *cutter.cut(text)[0]) for place, text in enumerate(texts[1][:4])]
    return [(f"doc{place}:{key}", passage) for place, key, passage in cut]


@pytest.fixture(scope="module")
def view_file(student_folder, built, texts, tmp_path_factory) -> str:
    """What `mkdm follow` makes of a ranking of two passages of the first query, and one of another model."""
    folder = tmp_path_factory.mktemp("view")
    version = model_version(student_folder)
    rows = [
        ("q1", 1, built[0][0], KNOWN, version, "run"),
        ("q1", 2, built[1][0], KNOWN / 2, version, "run"),
        ("q1", 3, built[2][0], KNOWN / 4, "f" * 16, "run"),
        ("q2", 1, "given", KNOWN, version, "run"),
    ]
    names = ("query_id", "rank", "passage_id", "score", "model_version", "run_id")
    write_deltalake(str(folder / "ranked_passages"), pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))))
    queries = {"query_id": ["q1"], "query": [normalise_query(texts[0][0])]}
    write_deltalake(str(folder / "normalised_queries"), pa.table(queries))
    command = [sys.executable, "-m", "jobs.follow", "--view", str(folder / "view"), "--warehouse", str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "version 0: whole, 4 rows" in said
    assert "queries: 1 of" in said
    return str(folder / "view")


@pytest.fixture(scope="module")
def server(student_folder, view_file):
    limits = ("--max-documents", "40", "--max-bytes", "60000", "--name", "tiny")
    with RerankServer(student_folder, *TORCH, "--view", view_file, *limits) as one:
        yield one


def test_concurrent_requests_get_the_scorers_own_scores(server, scorer, texts):
    queries, passages = texts
    calls = [(normalise_query(queries[at]), passages[at : at + 1 + at % 7]) for at in range(20, 60)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda call: server.rerank(*call), calls))
    for (query, some), answer in zip(calls, answers, strict=True):
        assert answer.status == 200
        np.testing.assert_allclose(answer.scores(), scorer.score([query] * len(some), some), rtol=0, atol=1e-6)
        assert {one["source"] for one in answer.body["results"]} == {"model"}
        found = [one["relevance_score"] for one in answer.body["results"]]
        assert found == sorted(found, reverse=True)
        assert answer.body["usage"]["total_tokens"] > 0
    batches = server.metric("mkdm_batch_pairs_count")
    assert 0 < batches < len(calls), "requests that wait go together"
    assert server.metric("mkdm_batch_pairs_sum") == sum(len(some) for _, some in calls)
    assert server.metric('mkdm_requests_total{status="200"}') >= len(calls)
    assert server.metric("mkdm_request_seconds_count") >= len(calls)


def test_form_of_a_response(server, texts):
    documents = [texts[1][30], {"text": texts[1][31]}, {"text": texts[1][32], "title": "kept out"}]
    answer = server.rerank(texts[0][30], documents, top_n=2, return_documents=True, model="tiny", user="somebody")
    assert answer.body["model"] == "tiny"
    assert len(answer.body["results"]) == 2
    for one in answer.body["results"]:
        assert one["document"] == {"text": texts[1][30 + one["index"]]}
    for path in ("/v1/rerank", "/v2/rerank"):
        again = server.post(json.dumps({"query": texts[0][30], "documents": documents[:1]}).encode(), path)
        assert again.status == 200
        assert "document" not in again.body["results"][0]


def test_pairs_of_the_view_are_answered_from_it(server, scorer, texts, built):
    typed = f"  {texts[0][0].upper()} "
    documents = [built[1][1], texts[1][50], built[0][1], built[2][1]]
    before = server.metric('mkdm_pairs_total{source="view"}'), server.metric("mkdm_batch_pairs_sum")
    answer = server.rerank(typed, documents)
    sources = [one["source"] for one in sorted(answer.body["results"], key=lambda one: one["index"])]
    assert sources == ["view", "model", "view", "model"], "the third is another model's"
    asked = [normalise_query(typed)] * 2
    expected = [KNOWN / 2, scorer.score(asked, documents[1::2])[0], KNOWN, scorer.score(asked, documents[1::2])[1]]
    np.testing.assert_allclose(answer.scores(), expected, rtol=0, atol=1e-6)
    after = server.metric('mkdm_pairs_total{source="view"}'), server.metric("mkdm_batch_pairs_sum")
    assert (after[0] - before[0], after[1] - before[1]) == (2, 2)
    whole = server.rerank(typed, documents[::2])
    assert {one["source"] for one in whole.body["results"]} == {"view"}
    assert whole.body["usage"]["total_tokens"] == 0
    assert server.metric("mkdm_batch_pairs_sum") == after[1], "the model was not asked"
    assert server.metric("mkdm_view_version") == 0


def test_ids_of_the_client_are_looked_up(server, texts, built):
    given = [{"id": "given", "text": texts[1][60]}, {"id": "other", "text": texts[1][61]}]
    answer = server.rerank("any words", given, query_id="q2")
    assert [one["source"] for one in sorted(answer.body["results"], key=lambda one: one["index"])] == ["view", "model"]
    changed = [{"id": built[0][0], "text": built[0][1] + " and more"}, {"id": built[0][0], "text": built[0][1]}]
    answer = server.rerank("any words", changed, query_id="q1")
    by_index = {one["index"]: one["source"] for one in answer.body["results"]}
    assert by_index == {0: "model", 1: "view"}, "the id's hash is not that of the first text"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the body is not JSON: Expecting property name"),
        (b"\xff", 400, "the body is not JSON"),
        (b"[" * 100_000, 413, "the body has more than 60,000 bytes"),
        (b"[" * 50_000, 400, "the body is not JSON: too many brackets"),
        (b"[1]", 400, "the body is a list: give an object with query, documents"),
        (b'{"documents": ["a"]}', 422, "query is missing: give a text"),
        (b'{"query": " ", "documents": ["a"]}', 422, "query is empty"),
        (b'{"query": "a"}', 422, "documents is missing: give a list"),
        (b'{"query": "a", "documents": []}', 422, "documents is an empty list"),
        (b'{"query": "a", "documents": ["a", 3]}', 422, "documents[1] is a number: give a text"),
        (b'{"query": "a", "documents": [{"title": "a"}]}', 422, "documents[0].text is missing"),
        (b'{"query": "a", "documents": ["\\ud800"]}', 422, "documents[0] has half of a character at position 0"),
        (b'{"query": "a", "documents": ["a"], "top_n": 0}', 422, "top_n must be a whole number from 1 on"),
        (b'{"query": "a", "documents": ["a"], "return_documents": 1}', 422, "return_documents must be true or false"),
        (b'{"query": "a", "documents": ["a"], "raw_scores": true}', 422, "raw_scores is not served"),
        (b'{"query": "a", "documents": ["a"], "model": "x"}', 404, "model is 'x'; here is tiny or "),
        (json.dumps({"query": "a", "documents": ["a"] * 41}).encode(), 413, "41 documents, 40 are allowed"),
        (json.dumps({"query": "a " * 300, "documents": ["a"]}).encode(), 422, "documents[0] cannot be scored: the qu"),
    ],
)
def test_bad_requests_get_one_clear_line(server, body, status, message):
    answer = server.post(body)
    assert answer.status == status
    assert answer.body["error"].startswith(message)
    assert "\n" not in answer.body["error"]


def test_health_and_other_paths(server):
    assert server.get("/health").body == {"status": "ready", "model": "tiny"}
    assert [server.get(f"/health/{name}").status for name in ("live", "ready")] == [200, 200]
    assert server.get("/metrics").headers["content-type"].startswith("text/plain")
    assert server.get("/elsewhere").status == 404
    wrong = server.get("/rerank")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert wrong.body["error"].startswith("GET /rerank is not served: POST /rerank")


def test_full_queue_slow_body_and_sigterm(student_folder, scorer, texts):
    """Each request waits a second for others, so that the queue is full when it should be."""
    query, passages = texts[0][0], texts[1][:5]
    flags = ("--batch-window", "1000", "--queue-pairs", "12", "--max-documents", "12", "--timeout", "4")
    with RerankServer(student_folder, *TORCH, *flags) as server, ThreadPoolExecutor(4) as clients:

        def ask() -> list:
            waiting = [clients.submit(server.rerank, query, passages) for _ in range(2)]
            while server.metric("mkdm_waiting_pairs") < 10:
                time.sleep(0.01)
            return waiting

        waiting = ask()
        refused = server.rerank(query, passages)
        assert refused.status == 429
        assert refused.body["error_type"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        assert server.metric("mkdm_refused_total") == 1
        for one in waiting:
            np.testing.assert_allclose(one.result().scores(), scorer.score([query] * 5, passages), rtol=0, atol=1e-6)
        assert server.metric("mkdm_batch_pairs_count") == 1, "both in one call"

        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port)) as slow:
            slow.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert slow.recv(1000).startswith(b"HTTP/1.1 504 ")

        waiting = ask()
        assert server.stop() == 0
        for one in waiting:
            np.testing.assert_allclose(one.result().scores(), scorer.score([query] * 5, passages), rtol=0, atol=1e-6)
        with pytest.raises(OSError, match="refused"):
            server.get("/health")
        assert server.lines[-1] == "stopped: what was queued is answered\n"


def test_what_cannot_be_served(student_folder, view_file, tmp_path):
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port} \(Address already in use\)"):
            serve(ServingSettings(student_folder, "tiny", port=port), said.append)
        command = [sys.executable, "-m", "jobs", "serve", "--model", student_folder, "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("error: cannot listen on")
        assert done.stderr.count("\n") == 1
    with pytest.raises(ConfigError, match="--host is 'no such host', which is no address here"):
        serve(ServingSettings(student_folder, "tiny", host="no such host"), said.append)
    with pytest.raises(ModelError, match="nowhere"):
        serve(ServingSettings(str(tmp_path / "nowhere"), "tiny", port=0), said.append)
    torch = {"backend": "torch", "precision": "fp32", "port": 0}
    with pytest.raises(InputError, match=r"there is no view at .*absent: make one with mkdm follow"):
        serve(ServingSettings(student_folder, "tiny", view=str(tmp_path / "absent"), **torch), said.append)
    (tmp_path / "text").write_text("no database, but more than a hundred letters " * 9)
    with pytest.raises(InputError, match="text is no view of mkdm follow"):
        serve(ServingSettings(student_folder, "tiny", view=str(tmp_path / "text"), **torch), said.append)
    assert not said


def test_a_view_of_before_has_no_queries_and_is_read_by_ids(view_file, student_folder, texts, tmp_path):
    with closing(sqlite3.connect(tmp_path / "old")) as old, closing(sqlite3.connect(view_file)) as new:
        new.backup(old)
        old.executescript("DROP TABLE queries; DROP TABLE applied_queries")
    view = RankedView(str(tmp_path / "old"), model_version(student_folder))
    assert not view.normalises
    assert view.scores(texts[0][0], None, [Document("any")]) == {}
    assert view.scores("any", "q2", [Document("any", "given")]) == {0: KNOWN}
    view.close()
    with closing(View(str(tmp_path / "old"))) as followed:  # as the next look of `mkdm follow` opens it
        assert followed.query_id(texts[0][0]) is None
