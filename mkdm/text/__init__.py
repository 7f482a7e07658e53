"""Texts before a model sees them: queries normalised, HTML taken out, documents cut into passages, and scored by words.

May import the top of `mkdm` alone.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.text.block_scores import word_scores
    from mkdm.text.delimited import Quotes, Record, records
    from mkdm.text.html import HTML, strip_html
    from mkdm.text.invisible import VISIBLE
    from mkdm.text.json_lines import IDS, TEXTS, RowFault, read_object, value_text
    from mkdm.text.passages import PassageCutter, cutter_version
    from mkdm.text.queries import normalise_query, words
    from mkdm.text.quote_signs import QuoteSigns
else:
    __all__, __getattr__, __dir__ = door(__name__)
