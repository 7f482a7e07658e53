"""Gives a trained student a lexical part: `mkdm add-lexical`. Its encoder and headers stay as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mkdm.config import parse_config, require_at_least
from mkdm.errors import ConfigError, ModelError
from mkdm.model import Lexical, LexicalModule, MkdmConfig, MkdmModel, folder_of, load_checkpoint, save_checkpoint
from mkdm.scoring import EncodedPairs, distinct_ids, lexical_shifts
from mkdm.train.arrow_feed import row_groups
from mkdm.train.rows import TrainingRows
from mkdm.train.stage import TRAIN
from mkdm.train.training_set import TrainingSet


@dataclass(frozen=True)
class AddLexicalConfig:
    """Give a trained student a lexical part: BM25 of its token ids then moves its score; nothing is trained.

    Raises:
        ConfigError: a number outside its range.
    """

    model: str
    """Folder of the student; one that has a lexical part gets the new one in its place."""
    training_set: str
    """Folder that mkdm export-training-set wrote with this student's tokenizer. How rare each token is among passages,
    and how long these are, comes of its split train."""
    output: str
    """Folder for the new student; it must not be there, or be empty."""
    lexical_weight: float = 0.75
    """w, by which ln((1 + BM25) / (1 + most)) is multiplied before it is added to the logit; choose it on whole lists
    of queries that were not trained on."""
    pairs: int = 200_000
    """Pairs of the training set that are read at most; it is shuffled by --seed."""
    seed: int = 0
    """Of the order in which the pairs are read."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "pairs")
        require_at_least(self, 0, "seed")
        if not 0 < self.lexical_weight < float("inf"):
            raise ConfigError(f"--lexical-weight is {self.lexical_weight}; it must be a number above 0")


def add_lexical(config: AddLexicalConfig) -> str:
    """Write the student with a lexical part to `config.output`, its weights in fp16, as `mkdm train` writes them.

    Returns:
        Its version.

    Raises:
        ConfigError: the output is there, or the tokenizer has no separator.
        ModelError: the folder is no student of ours, or does not load.
        InputError: the training set is missing, changed, empty, or was encoded by another tokenizer.
    """
    output = Path(config.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"--output {output} is there already: name a new folder")
    folder = folder_of(config.model)
    loaded, tokenizer, _ = load_checkpoint(folder)
    if not isinstance(loaded.model, MkdmModel):
        raise ModelError(f"{config.model} is no student of ours: only a student can have a lexical part")
    if tokenizer.sep_token_id is None:
        raise ConfigError("a lexical part needs a separator between query and passage: the tokenizer has none")
    training_set = TrainingSet.read(config.training_set)
    training_set.check_tokenizer(tokenizer)
    training_set.check_files(TRAIN)
    rows = _some_rows(training_set, config.pairs, config.seed)
    size = int(loaded.model.config.encoder_config.vocab_size)
    lexical = lexical_of(rows, training_set.template.query_start, int(tokenizer.sep_token_id), size)
    student = with_lexical(loaded.model, replace(lexical, weight=config.lexical_weight))
    return save_checkpoint(student, tokenizer, output, torch.float16)


def lexical_of(rows: TrainingRows, query_start: int, separator_id: int, size: int) -> Lexical:
    """The lexical part, of weight 1, that some pairs give.

    Args:
        rows: with any labels or none.
        query_start: position of a query's first token.
        size: V, token ids that the student knows.
    """
    pairs = texts_of(rows, query_start, separator_id)
    passages, _ = distinct_ids(pairs.passage_ids)
    frequencies = np.zeros(size, dtype=np.int64)
    for ids in passages:
        frequencies[np.unique(ids)] += 1
    number, length = len(passages), sum(map(len, passages))
    table = np.log1p((number - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float16).astype(np.float32)
    lexical = Lexical(1.0, 0.0, length / number, separator_id, table)
    return replace(lexical, centre=float(lexical_shifts(lexical, pairs).mean()))


def texts_of(rows: TrainingRows, query_start: int, separator_id: int) -> EncodedPairs:
    """The pairs as their texts' token ids, without special tokens."""
    ends = query_start + rows.query_lengths
    cut = [ids[:length] for ids, length in zip(rows.input_ids, rows.lengths.tolist(), strict=True)]
    return EncodedPairs(
        query_ids=[ids[query_start:end] for ids, end in zip(cut, ends.tolist(), strict=True)],
        passage_ids=[ids[end:][ids[end:] != separator_id] for ids, end in zip(cut, ends.tolist(), strict=True)],
        lengths=rows.lengths,
        errors={},
    )


def with_lexical(student: MkdmModel, lexical: Lexical) -> MkdmModel:
    """A copy of the student with that lexical part; its own, if it has one, is taken off."""
    student.take_lexical()
    own = student.config.own() | {
        "separator_id": lexical.separator_id,
        "lexical_weight": lexical.weight,
        "lexical_centre": lexical.centre,
        "lexical_length": lexical.passage_length,
    }
    made = MkdmModel(MkdmConfig(**own))
    made.load_state_dict(student.state_dict() | LexicalModule.of(lexical).state_dict(prefix="lexical."))
    made.eval()
    return made


def _some_rows(training_set: TrainingSet, most: int, seed: int) -> TrainingRows:
    parts: list[TrainingRows] = []
    for part in row_groups(training_set, TRAIN, seed=seed, epoch=0):
        parts.append(part)
        if sum(map(len, parts)) >= most:
            break
    rows = TrainingRows.concat(parts)
    return rows.take(np.arange(min(len(rows), most)))


def main(argv: Sequence[str] | None = None) -> None:
    """Add from the command line and print the version."""
    (config,) = parse_config("mkdm add-lexical", argv, AddLexicalConfig)
    version = add_lexical(config)
    print(f"student {version} saved in {config.output}")
