"""From texts to scores: encoding, token cache, batches, the lean encoder, backends, `Scorer`, ensembles.

May import `mkdm.model` and what is below it.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.scoring.backend import Backend, LoadedBackend, TextReader
    from mkdm.scoring.backend_choice import load_backend
    from mkdm.scoring.batching import token_budget_batches
    from mkdm.scoring.block import Block
    from mkdm.scoring.encoder_choice import pair_encoder
    from mkdm.scoring.encoding import Batch, EncodedPairs, PairEncoder
    from mkdm.scoring.ensemble import load_scorer
    from mkdm.scoring.lean_encoder import Lookup
    from mkdm.scoring.lexical_part import lexical_shifts, moved
    from mkdm.scoring.machine import cpu_name
    from mkdm.scoring.memory import memory_bytes
    from mkdm.scoring.openvino_backend import ir_backend, machine_precisions
    from mkdm.scoring.precision_choice import Settled, settle
    from mkdm.scoring.scorer import PairScorer, Scorer, WindowScores
    from mkdm.scoring.separate_encoder import SeparateParts, separate_parts
    from mkdm.scoring.separate_scoring import score_at_once
    from mkdm.scoring.separate_texts import PairTexts, SeparatePairEncoder
    from mkdm.scoring.template import Template
    from mkdm.scoring.token_cache import distinct_ids
    from mkdm.scoring.torch_backend import (
        DTYPES,
        PROBE,
        TorchBackend,
        avoid_cudnn_attention,
        make_lean,
        probe,
        to_tensors,
        torch_loaded,
    )
    from mkdm.scoring.torch_precision import fastest_precision
else:
    __all__, __getattr__, __dir__ = door(__name__)
