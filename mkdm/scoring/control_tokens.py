"""Token ids of texts in which control tokens, such as [SEP], <s> or <|endoftext|>, are text like any other.

Only the model's own template writes control tokens, so that no query or passage can write the model's input.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer


class TextTokenizer:
    """Tokenises texts by a fast tokenizer of transformers, without special tokens.

    Texts that spell no control token get the ids that the tokenizer itself gives them. One that does gets the ids of
    its pieces, as from `split_special_tokens=True`, also where the vocabulary holds the control token as a piece, as
    that of XLM-R does. Control tokens are the special ones among the added tokens and those with a role, but for the
    unknown token, which any unknown word gives, and tokens of a single character. Other added tokens are words.

    Args:
        tokenizer: a fast tokenizer; truncation and padding are off.
        template: text around the texts; the added tokens in it, such as <think>, are control tokens too.
    """

    def __init__(self, tokenizer: Any, template: str = "") -> None:
        self._rust = tokenizer.backend_tokenizer
        special = {
            one.content: number
            for number, one in self._rust.get_added_tokens_decoder().items()
            if one.special or one.content in template
        }
        special |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        unknown = tokenizer.unk_token_id
        self._control = {text: number for text, number in special.items() if len(text) > 1 and number != unknown}
        self._control_ids = frozenset(self._control.values())
        self._without: Tokenizer | None = None

    @property
    def version(self) -> str:
        """What two of them have in common that give all texts the same ids, as far as that is easily told."""
        content = f"{sorted(self._control.items())} {self._rust.to_str()}"
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def control(self) -> list[str]:
        """The control tokens, as they are spelt."""
        return list(self._control)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text.

        Raises:
            ValueError: a text gives a control token all the same.
        """
        self._rust.encode_special_tokens = True  # each time, since transformers resets it at each call of its own
        found = [one.ids for one in self._rust.encode_batch(list(texts), add_special_tokens=False)]
        return [
            ids if self._control_ids.isdisjoint(ids) else self._pieces(text)
            for text, ids in zip(texts, found, strict=True)
        ]

    def _pieces(self, text: str) -> list[int]:
        """Ids of a text in which the vocabulary itself finds a control token."""
        if self._without is None:
            self._without = _without(self._rust, self._control)
        ids: list[int] = self._without.encode(text, add_special_tokens=False).ids
        if not self._control_ids.isdisjoint(ids):
            raise ValueError("the tokenizer finds a control token in the text")
        return ids


def _without(rust: Tokenizer, control: dict[str, int]) -> Tokenizer:
    """The same tokenizer, whose control tokens have names that no text can spell; all ids stay."""
    names = {text: f"{text}{secrets.token_hex(16)}" for text in control}
    content = json.loads(rust.to_str())
    for one in content["added_tokens"]:
        one["content"] = names.get(one["content"], one["content"])
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:  # Unigram
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("merges"):
        pairs = (one.split(" ") if isinstance(one, str) else one for one in model["merges"])
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]
    copy = Tokenizer.from_str(json.dumps(content))
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy
