"""CTranslate2 as a peer: its encoder over the plain model's weights, and the model's own header after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mkdm.benchmark.plain_student import PlainScorer, Scorer, in_sorted_batches, scores_of
from mkdm.quiet import quiet_transformers

PRECISIONS = ("fp32", "int8")
_COMPUTE = {"fp32": "float32", "int8": "int8"}


def ctranslate2_folder(folder: str | Path, precision: str) -> Path:
    """Where the converted model of a plain folder lies."""
    return Path(folder, f"ctranslate2_{precision}")


def convert_ctranslate2(folder: str, precisions: Sequence[str]) -> None:
    """Convert a plain folder's encoder; int8 is CTranslate2's own, of weights ahead and of activations as they come."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        def load_model(self, *args: Any, **more: Any) -> Any:
            model = super().load_model(*args, **more)
            model.config.position_embedding_type = "absolute"  # which transformers 5 no more writes down, and it asks
            return model

    with quiet_transformers():
        for precision in precisions:
            target = str(ctranslate2_folder(folder, precision))
            Converter(folder).convert(target, quantization=_COMPUTE[precision], force=True)


def ctranslate2(folder: str, precision: str) -> Scorer:
    """`ctranslate2.Encoder` on all cores, over batches sorted by length; CTranslate2 has no header for classes."""
    from ctranslate2 import Encoder

    cores = torch.get_num_threads()
    path = str(ctranslate2_folder(folder, precision))
    encoder = Encoder(path, device="cpu", compute_type=_COMPUTE[precision], intra_threads=cores)
    plain = PlainScorer(folder, "fp32")
    pooler, classifier, tokenizer = plain.model.bert.pooler, plain.model.classifier, plain.tokenizer

    @torch.inference_mode()
    def score(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        inputs = tokenizer(list(queries), list(passages), truncation="only_second")
        found = encoder.forward_batch(inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
        cls = torch.from_numpy(np.array(found.last_hidden_state)[:, :1])  # [B, 1, H]
        return scores_of(classifier(pooler(cls)), plain.alpha)

    return in_sorted_batches(score)
