"""The torch backend, for CPU and CUDA: the lean encoder, inference mode, bf16 where the machine is quicker with it."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mkdm.errors import ConfigError
from mkdm.model import PLAIN, PairModel, Prompting, Wording, load_checkpoint, read_wording
from mkdm.scoring.backend import WINDOW, LoadedBackend, TextReader
from mkdm.scoring.captured_passes import CapturedPass, CapturedPasses, Inputs
from mkdm.scoring.cuda_graphs import MOST_BYTES, cuda_graph_capture
from mkdm.scoring.encoder_choice import pair_encoder
from mkdm.scoring.encoding import Batch, PairEncoder
from mkdm.scoring.first_only import first_only_encoder
from mkdm.scoring.host_buffers import HostBuffers
from mkdm.scoring.lean_encoder import lean_encoder
from mkdm.scoring.memory import STATE_BYTES
from mkdm.scoring.modernbert_encoder import modernbert_encoder
from mkdm.scoring.separate_encoder import SeparateParts, separate_parts
from mkdm.scoring.separate_scoring import score_at_once
from mkdm.scoring.separate_texts import PairBatch, SeparatePairEncoder, TextBatch
from mkdm.scoring.shape_buckets import ShapeBuckets
from mkdm.scoring.torch_precision import fastest_precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_TOKEN_BUDGET = 2048
CUDA_TOKEN_BUDGET = 65536
CUDA_WINDOW = 32768
"""Pairs sorted together on a GPU: batches of 65,536 tokens then have 1.3 % of padding (7.8 % with 4,096 pairs)."""
CUDA_STATE_BYTES = 2 << 30


class TorchBackend:
    """Runs a `PairModel` on the first CUDA device if there is one, else on all the CPU's cores.

    Args:
        model: in fp32, on the CPU: a `PairModel`, or what a subclass runs.
        precision: fp32, bf16, fp16 or auto.
        streams: batches at once.

    Raises:
        ConfigError: fp16 on a CPU, which torch runs slower than fp32.
    """

    precision: str
    token_budget: int
    window: int
    streams: int
    buckets: ShapeBuckets | None
    """Shapes of batches; None where any will do."""
    blocks: int
    """How many blocks may be under way at once, with profit."""
    out_of_memory: tuple[type[Exception], ...] = (torch.OutOfMemoryError,)

    def __init__(self, model: nn.Module, precision: str = "auto", streams: int | None = None) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = fastest_precision(self.device) if precision == "auto" else precision
        if self.precision == "fp16" and self.device.type == "cpu":
            raise ConfigError("fp16 needs a GPU: use bf16, fp32 or auto on a CPU")
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            avoid_cudnn_attention()
        self.token_budget = CUDA_TOKEN_BUDGET if on_gpu else CPU_TOKEN_BUDGET
        self.window = CUDA_WINDOW if on_gpu else WINDOW
        self.streams = streams or (2 if on_gpu else 1)  # on a GPU one batch is copied while another is computed
        self.buckets = ShapeBuckets(self.token_budget) if on_gpu else None
        self.blocks = 4 if on_gpu else 2
        self.dtype = DTYPES[self.precision]
        self._model: Callable[..., Tensor] = in_precision(model, self.device, self.dtype).eval()
        self._local = threading.local()
        self._capturer: Callable[..., Callable[[Inputs], CapturedPass]] | None = cuda_graph_capture if on_gpu else None

    def compile(self) -> None:
        """Have the model compiled when it runs next, for batches of any shape."""
        self._model = torch.compile(self._model, dynamic=True)
        self._capturer = None

    @torch.inference_mode()
    def score(self, batch: Batch) -> NDArray[np.float32]:
        """int64[B, L] inputs -> float32[B, 2], score and logit; safe to call from several threads."""
        rows, length = batch.input_ids.shape
        with self._stream():
            if self.buckets is None:
                outputs = self._model(**to_tensors(batch, self.device)).float().cpu()
            else:
                inputs = self._sent(arrays_of(batch), self.buckets.rows(rows, length))
                outputs = self._pass()(inputs)[:rows].float().cpu()
        result: NDArray[np.float32] = outputs.numpy()
        return result

    def _sent(self, arrays: dict[str, NDArray[np.int64]], rows: int) -> dict[str, Tensor]:
        """The arrays on the device, padded to so many rows, through this thread's host buffers."""
        on_gpu = self.device.type == "cuda"
        if not hasattr(self._local, "buffers"):
            self._local.buffers = HostBuffers(pinned=on_gpu)
        host = self._local.buffers.fill(arrays, rows)
        inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in host.items()}
        if on_gpu:
            self._local.buffers.sent(torch.cuda.current_stream(self.device).record_event())
        return inputs

    def _pass(self) -> Callable[[Inputs], Tensor]:
        """What runs the model in this thread: as captured, where there is a way to."""
        if self._capturer is None:
            return lambda inputs: self._model(**inputs)
        if not hasattr(self._local, "passes"):
            self._local.passes = CapturedPasses(self._model, self._capturer(self._model), MOST_BYTES)
        run: Callable[[Inputs], Tensor] = self._local.passes.run
        return run

    def _stream(self) -> Any:
        """The CUDA stream of this thread; nothing on a CPU."""
        if self.device.type == "cpu":
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)
        return torch.cuda.stream(self._local.stream)


def in_precision(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The model on a device, its numbers of that type but for the frequencies of rotary positions.

    Rounded to bf16 these would turn a token at position 500 by a whole radian too far or too little.
    """
    exact = {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    model = model.to(device, dtype)
    for name, buffer in model.named_buffers():
        if name in exact:
            buffer.data = exact[name].to(device)
    return model


class TorchReader(TorchBackend, TextReader):
    """Runs the two parts of a student with separate layers where `TorchBackend` runs a model.

    Args:
        parts: in fp32, on the CPU; the rest as for `TorchBackend`.
    """

    def __init__(self, parts: SeparateParts, precision: str = "auto", streams: int | None = None) -> None:
        super().__init__(parts, precision, streams)
        self.buckets = None  # pairs over states are gathered from rows of any number
        self._text: Callable[..., Tensor] = parts.text
        self._pair: Callable[..., Tensor] = parts.pair
        self._width = parts.width
        state_bytes = CUDA_STATE_BYTES if self.device.type == "cuda" else STATE_BYTES
        self.state_tokens = state_bytes // (self._width * self.dtype.itemsize)

    def compile(self) -> None:
        """Have both parts compiled when they run next, for batches of any shape."""
        self._text, self._pair = (torch.compile(part, dynamic=True) for part in (self._text, self._pair))

    @torch.inference_mode()
    def new_states(self, tokens: int) -> Tensor:
        """See `TextReader`."""
        with self._stream():
            states = torch.zeros(tokens, self._width, dtype=self.dtype, device=self.device)
            self._finish()
        return states

    @torch.inference_mode()
    def read(self, batch: TextBatch, states: Tensor, rows: NDArray[np.int64]) -> None:
        """See `TextReader`."""
        with self._stream():
            tensors = on_device({name: array for name, array in vars(batch).items() if array is not None}, self.device)
            found = self._text(**tensors)
            states[on_device({"rows": rows}, self.device)["rows"]] = found[tensors["attention_mask"].bool()]
            self._finish()

    @torch.inference_mode()
    def score_pairs(self, states: Tensor, batch: PairBatch) -> NDArray[np.float32]:
        """See `TextReader`."""
        with self._stream():
            outputs = self._pair(states, **on_device(vars(batch), self.device)).float().cpu()
        result: NDArray[np.float32] = outputs.numpy()
        return result

    def _finish(self) -> None:
        """Wait until other threads' streams may read what was written."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()


def avoid_cudnn_attention() -> None:
    """Leave attention to torch's memory-efficient kernel: cuDNN's, which Hopper prefers, is built for each new shape.

    Nearly every batch by token budget has another shape; see pytorch/pytorch#155958.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The inputs of a forward pass, int64[B, L] each, on the device."""
    return on_device(arrays_of(batch), device)


def arrays_of(batch: Batch) -> dict[str, NDArray[np.int64]]:
    """The inputs by name."""
    arrays = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        arrays["token_type_ids"] = batch.token_type_ids
    return arrays


def on_device(arrays: dict[str, NDArray[np.int64]], device: torch.device) -> dict[str, Tensor]:
    """The arrays as tensors."""
    host = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type == "cpu":
        return host
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in host.items()}


def load(
    folder: str | Path, precision: str, threads: int | None, streams: int | None, prompting: Prompting = PLAIN
) -> LoadedBackend:
    """Load a model folder; see `load_backend`."""
    if threads is not None:
        torch.set_num_threads(threads)
    model, tokenizer, version = load_checkpoint(folder, prompting)
    return torch_loaded(model, tokenizer, version, precision, streams, read_wording(folder, prompting))


def torch_loaded(
    model: PairModel,
    tokenizer: Any,
    version: str,
    precision: str,
    streams: int | None = None,
    wording: Wording | None = None,
) -> LoadedBackend:
    """The quickest backend of torch for a model: its encoder lean, and separate layers in two parts.

    Args:
        model: in fp32, on the CPU; its lexical part is taken off.
    """
    lexical = model.take_lexical()
    encoder = pair_encoder(tokenizer, model.max_length, wording, model.separation)
    if isinstance(encoder, SeparatePairEncoder):
        backend = separate_reader(model, encoder, precision, streams) or TorchBackend(model, precision, streams)
    else:
        make_lean(model, encoder)
        backend = TorchBackend(model, precision, streams)
    return LoadedBackend(backend, tokenizer, model.max_length, version, wording, model.separation, lexical)


def make_lean(model: PairModel, encoder: PairEncoder) -> bool:
    """Put the lean encoder in the place of the model's own if it leaves the scores of probe pairs within 1e-5.

    Returns:
        Whether it did. A model of another architecture, or that reads more than the first position, stays as it is.
    """
    lean = lean_encoder(model.encoder) or modernbert_encoder(model.encoder, model.reads_first)
    if lean is None and model.reads_first:
        lean = first_only_encoder(model.encoder)
    if lean is None:
        return False
    tensors = probe(encoder)
    own = model.encoder
    with torch.inference_mode():
        plain = model(**tensors)
        model.replace_encoder(lean)
        try:
            same = torch.allclose(model(**tensors), plain, rtol=0, atol=1e-5)
        except (RuntimeError, IndexError):
            same = False
    if not same:
        model.replace_encoder(own)
    return same


def separate_reader(
    model: PairModel, encoder: SeparatePairEncoder, precision: str, streams: int | None = None
) -> TorchReader | None:
    """What reads a student's texts apart, if its scores of probe pairs are within 1e-5 of those by attention masks.

    Returns:
        None where they are not; then the model itself, which reads each text anew for each pair, has the right ones.
    """
    parts = separate_parts(model)
    if parts is None:
        return None
    pairs = encoder.encode(*PROBE)
    with torch.inference_mode():
        plain = model(**probe(encoder)).numpy()
    found = score_at_once(TorchReader(parts, "fp32"), encoder, pairs)
    if not np.allclose(found, plain, rtol=0, atol=1e-5):
        return None
    return TorchReader(parts, precision, streams)


PROBE = (["a", "a a"], ["a a a a", "a"])
"""Two short pairs, one of them padded."""


def probe(encoder: PairEncoder) -> dict[str, Tensor]:
    """The inputs of two short pairs, one of them padded, on the CPU."""
    batch = encoder.batch(encoder.encode(*PROBE), np.arange(len(PROBE[0])))
    return to_tensors(batch, torch.device("cpu"))
