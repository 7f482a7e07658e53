"""Cuts documents into passages that a model can read whole, at the ends of sentences where there are any."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from mkdm.errors import ConfigError

BLOCK = 20_000
"""Characters of a text that are cut at once, at most."""


class PassageCutter:
    """Cuts texts by the tokens of one tokenizer.

    Args:
        tokenizer: a fast tokenizer of Hugging Face; it stays as it is.
        max_tokens: tokens of a passage at most, special tokens left out.
        overlap: tokens at most that a passage shares with the one before.

    Raises:
        ConfigError: the overlap leaves no room.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, overlap: int = 0) -> None:
        if not 0 <= overlap < max_tokens:
            raise ConfigError(f"--passage-overlap is {overlap}; it must be at least 0 and below {max_tokens} tokens")
        copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        copy.no_truncation()
        copy.no_padding()
        self._splitter = TextSplitter.from_huggingface_tokenizer(copy, max_tokens, overlap)

    def cut(self, text: str) -> list[tuple[str, str]]:
        """The passages of a text in their order, each with a key that it keeps whatever stands around it.

        A passage ends where a sentence ends, unless one sentence alone has too many tokens.

        Returns:
            Of each, 16 hex digits of its content's hash, with `.2`, `.3`, … where it stands in the text again; and it.
        """
        seen: Counter[str] = Counter()
        passages = []
        for passage in (passage for block in _blocks(text) for passage in self._splitter.chunks(block)):
            key = hashlib.blake2b(passage.encode(), digest_size=8).hexdigest()
            seen[key] += 1
            passages.append((key if seen[key] == 1 else f"{key}.{seen[key]}", passage))
        return passages


def _blocks(text: str) -> Iterator[str]:
    """The text in parts of some length at most: of texts without sentences the splitter's time grows with the square.

    A part ends at the last paragraph, or else line, sentence, or word, that ends in its second half.
    """
    begin = 0
    while len(text) - begin > BLOCK:
        half, full = begin + BLOCK // 2, begin + BLOCK
        ends = (text.rfind(mark, half, full) + len(mark) for mark in ("\n\n", "\n", ". ", "。", " "))
        end = next((end for end in ends if end > half), full)
        yield text[begin:end]
        begin = end
    yield text[begin:]


def cutter_version() -> str:
    """What besides tokenizer and settings decides where a text is cut."""
    return f"semantic-text-splitter {version('semantic-text-splitter')}"
