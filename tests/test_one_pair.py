"""Follows one real pair through everything: from its Delta row to its scored row."""

import numpy as np
import torch
from transformers import AutoTokenizer

from jobs.engine import Warehouse
from jobs.score import ScoreConfig, run
from mkdm.model.student import MkdmModel
from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.scorer import Scorer


def test_one_pair(spark, sample_pairs, student_folder, tmp_path):
    pair = sample_pairs[0]
    query, passage = pair["query"], pair["passage"]

    # A Delta row …
    warehouse = Warehouse(spark, str(tmp_path / "warehouse"))
    warehouse.table("pairs").overwrite(spark.createDataFrame([pair]))
    assert warehouse.table("pairs").read().first().asDict() == pair

    # … becomes token ids: [CLS] query [SEP] passage [SEP], cut at the passage's end …
    tokenizer = AutoTokenizer.from_pretrained(student_folder)
    student = MkdmModel.from_pretrained(student_folder).eval()
    encoder = PairEncoder(tokenizer, student.config.max_length)
    batch = encoder.batch(encoder.encode([query], [passage]), np.arange(1))
    tokens = tokenizer.convert_ids_to_tokens(batch.input_ids[0])
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert tokens.count("[SEP]") == 2
    assert len(tokens) <= 128

    # … the encoder's [CLS] state h1 …
    inputs = {name: torch.from_numpy(array) for name, array in vars(batch).items() if array is not None}
    with torch.inference_mode():
        h1 = student.encoder(**inputs).last_hidden_state[:, 0]
        # … one golden and two soft headers (1), (3), and their mean (6) …
        golden = torch.softmax(student.golden_header(h1), dim=1)[0, 1].item()
        soft = torch.sigmoid(student.soft_headers(h1))[0].tolist()
    by_hand = (golden + sum(soft)) / (1 + len(soft))
    assert len(soft) == 2

    # … which the scorer gives as well …
    scorer = Scorer.load(student_folder, precision="fp32")
    assert abs(scorer.score([query], [passage])[0] - by_hand) <= 1e-5

    # … and the job writes to Delta, with where it came from.
    report = run(spark, ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32"))
    row = warehouse.table("scores").read().first()
    assert (row.query_id, row.passage_id) == (pair["query_id"], pair["passage_id"])
    assert abs(row.score - by_hand) <= 1e-5
    assert row.model_version == scorer.model_version
    assert row.run_id == report.run.run_id
    assert report.totals.tokens == len(tokens)
