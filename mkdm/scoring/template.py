"""What an encoded pair looks like around its texts. Needs neither torch nor transformers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    """What stands around the texts of a pair, as far as padding and token types need it; see `PairEncoder`.

    Attributes:
        pad_id: token id of padding.
        query_start: position of the query's first token.
        has_types: whether the encoder takes token_type_ids.
        second_type_start: from `second_type_start + query_length` to `length` the type is `second_type`, before it 0.
        second_type: token type of the passage.
    """

    pad_id: int
    query_start: int
    has_types: bool
    second_type_start: int
    second_type: int
