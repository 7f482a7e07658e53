"""p50 and p99 of `mkdm serve` beside other rerank servers: one pair and ten passages, from a client of its own.

Run it with: python tests/scale/serving.py
Infinity pins other versions than ours: give the command of an environment of its own with --infinity.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

sys.path = [one for one in sys.path if Path(one).resolve() != Path(__file__).parent]  # html.py here is not Python's
SAMPLE = Path(__file__).parent.parent / "sample"
KINDS = {"one pair": 1, "ten passages": 10}
CLIENTS = (1, 4)
CROSS_ENCODER = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

class Asked(BaseModel):
    query: str
    documents: list[str]

app, model = FastAPI(), CrossEncoder(sys.argv[1], local_files_only=True)

@app.post("/rerank")
def rerank(asked: Asked):
    scores = model.predict([(asked.query, one) for one in asked.documents])
    found = [{"index": place, "relevance_score": float(score)} for place, score in enumerate(scores)]
    return {"results": sorted(found, key=lambda one: -one["relevance_score"])}

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""
"""What one writes oneself around a CrossEncoder."""


def prepare(folder: Path) -> None:
    """The sample student with OpenVINO files, the same encoder with one label for the peers, and a view of it all."""
    import numpy as np
    import pyarrow.parquet as pq
    from transformers import AutoModelForSequenceClassification

    from jobs.follow import View
    from mkdm.benchmark.plain_student import save_plain
    from mkdm.export import ExportSettings, ValidationPairs, export_model
    from mkdm.model import load_checkpoint, model_version

    shutil.copytree(SAMPLE / "student", folder / "student", dirs_exist_ok=True)
    rows, golden = pairs(), pq.read_table(SAMPLE / "golden_labels.parquet").to_pylist()
    labels = {(one["query_id"], one["passage_id"]): one["golden_label"] for one in golden}
    chosen = [one for one in rows if (one["query_id"], one["passage_id"]) in labels][::6]
    texts = [one["query"] for one in chosen], [one["passage"] for one in chosen]
    judges = ValidationPairs(
        [one["query_id"] for one in chosen],
        *texts,
        np.array([labels[one["query_id"], one["passage_id"]] for one in chosen]),
    )
    few = [text[::10] for text in texts]
    export_model(folder / "student", (few[0], few[1]), judges, ExportSettings(("fp32", "int8"), force=True), say=print)
    model, tokenizer, _ = load_checkpoint(SAMPLE / "student")
    save_plain(model.model, tokenizer, folder / "many-labels")
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "many-labels")
    weight, bias = plain.classifier.weight.data, plain.classifier.bias.data
    one_label = AutoModelForSequenceClassification.from_pretrained(
        folder / "many-labels", num_labels=1, ignore_mismatched_sizes=True
    )
    one_label.classifier.weight.data, one_label.classifier.bias.data = (
        (weight[1:2] - weight[:1]),
        (bias[1:2] - bias[:1]),
    )
    one_label.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    view, version = View(str(folder / "view")), model_version(folder / "student")
    ranked = [(one["query_id"], row, one["passage_id"], 0.5, version, "run") for row, one in enumerate(rows)]
    view._apply("sample", 0, "whole", [("insert", one) for one in ranked], time.time())
    view.close()


def pairs() -> list[dict[str, str]]:
    """The sample's pairs in an order without runs of one query."""
    import numpy as np
    import pyarrow.parquet as pq

    rows = pq.read_table(SAMPLE / "pairs.parquet").to_pylist()
    return [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]


def commands(folder: Path, infinity: str | None) -> dict[str, tuple[list[str], int]]:
    """By side, how its server is started, and its port."""
    ours = [sys.executable, "-m", "jobs.serve", "--model", str(folder / "student"), "--port"]
    theirs = str(folder / "plain")
    found: dict[str, list[str]] = {
        "mkdm serve, OpenVINO, int8": [*ours, "PORT", "--precision", "int8"],
        "mkdm serve, OpenVINO, fp32": [*ours, "PORT", "--backend", "openvino", "--precision", "fp32"],
        "mkdm serve, torch, fp32": [*ours, "PORT", "--backend", "torch", "--precision", "fp32"],
        "mkdm serve, from the view": [*ours, "PORT", "--precision", "int8", "--view", str(folder / "view")],
        "CrossEncoder behind FastAPI, fp32": [sys.executable, "-c", CROSS_ENCODER, theirs, "PORT"],
    }
    if infinity:
        flags = ["--model-id", theirs, "--device", "cpu", "--dtype", "float32", "--engine", "torch", "--port", "PORT"]
        found["Infinity, torch, fp32"] = [infinity, "v2", *flags, "--no-bettertransformer", "--no-model-warmup"]
    sides = {}
    for name, command in found.items():
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        sides[name] = ([str(port) if word == "PORT" else word for word in command], port)
    return sides


def bodies(rows: list[dict[str, str]], size: int, first: int, count: int, ids: bool) -> list[str]:
    """Requests of `size` passages each, none of them met before where `first` rises."""
    found = []
    for at in range(first, first + count):
        chosen = [rows[(at * size + place) % len(rows)] for place in range(size)]
        query = chosen[0]
        if ids:  # passages of the one query, which the view has
            chosen = [query] * size
        documents = [{"text": one["passage"], "id": one["passage_id"]} if ids else one["passage"] for one in chosen]
        asked = {"query": query["query"], "documents": documents} | ({"query_id": query["query_id"]} if ids else {})
        found.append(json.dumps(asked))
    return found


def load(url: str, waiting: list[str], clients: int) -> list[float]:
    """Milliseconds of each request: so many clients, each with one request at a time on a connection that it keeps."""
    count, found, lock = len(waiting), [], threading.Lock()
    address = urlsplit(url)

    def ask() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        while True:
            with lock:
                if not waiting:
                    return
                body = waiting.pop()
            began = time.perf_counter()
            connection.request("POST", "/rerank", body.encode(), {"content-type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            took = 1000 * (time.perf_counter() - began)
            assert response.status == 200, text
            assert len(json.loads(text)["results"]) == len(json.loads(body)["documents"])
            with lock:
                found.append(took)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == count
    return found


def wait(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    """Until it answers."""
    for _ in range(600):
        assert process.poll() is None, f"{name} ended"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request(
                "POST", "/rerank", b'{"query": "a", "documents": ["a"]}', {"content-type": "application/json"}
            )
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(name)


def main() -> None:
    """Start all, ask each in turns, print a table."""
    parser = argparse.ArgumentParser(description="Measure rerank servers.")
    parser.add_argument("--folder", default="build/serving")
    parser.add_argument("--infinity", help="the infinity_emb of an environment of its own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=40, help="of a side, kind and number of clients, a round")
    parser.add_argument("--client", action="store_true", help="as the second process: JSON of what to ask on stdin")
    args = parser.parse_args()
    if args.client:
        print(json.dumps([load(**asked) for asked in json.load(sys.stdin)]))
        return
    import numpy as np
    import psutil

    folder, rows = Path(args.folder), pairs()
    cells = [(kind, clients) for kind in KINDS for clients in CLIENTS]
    if not (folder / "view").exists():
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
    sides, running = commands(folder, args.infinity), {}
    took: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    rates: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    env = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    try:
        for name, (command, port) in sides.items():
            mine = {key: value for key, value in env.items() if "jobs.serve" in command or key != "PYTHONPATH"}
            running[name] = subprocess.Popen(command, env=mine, stdout=subprocess.DEVNULL)
            wait(port, running[name], name)
        for turn in range(args.rounds + 1):
            for name, (_, port) in sides.items():
                wanted, first = [], turn * args.requests
                for size in KINDS.values():
                    for clients in CLIENTS:
                        waiting = bodies(rows, size, first, args.requests, "view" in name)
                        wanted.append({"url": f"http://127.0.0.1:{port}", "waiting": waiting, "clients": clients})
                client = [sys.executable, __file__, "--client"]
                done = subprocess.run(client, input=json.dumps(wanted), check=True, stdout=subprocess.PIPE, text=True)
                if turn:  # the first one warms up
                    for cell, found in zip(cells, json.loads(done.stdout), strict=True):
                        took[name, *cell] += found
                        rates[name, *cell].append(1000 * cell[1] / float(np.mean(found)))
        heads = [f"{kind}, {clients} client{'s'[: clients - 1]}" for kind, clients in cells]
        print(f"| p50 / p99 in ms | {' | '.join(heads)} | pairs/s, ten, 4 clients | memory, MB |")
        for name in sides:
            figures = [np.percentile(took[name, *cell], [50, 99]) for cell in cells]
            told = [f"{p50:.1f} / {p99:.1f}" for p50, p99 in figures]
            rate = 10 * float(np.median(rates[name, "ten passages", 4]))
            memory = psutil.Process(running[name].pid).memory_info().rss / 1e6
            print(f"| {name} | {' | '.join(told)} | {rate:.0f} | {memory:,.0f} |", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(30)


if __name__ == "__main__":
    main()
