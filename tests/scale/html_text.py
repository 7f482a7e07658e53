"""How the time of taking the text out of HTML grows with tags that are never closed, or never end.

`python tests/scale/html_text.py`: for each kind of tag, seconds of CPU for 10,000, 20,000, 40,000 and 80,000 of them.
Linear is twice from column to column.
"""

import time

from mkdm.text import strip_html

SIZES = (10_000, 20_000, 40_000, 80_000)
KINDS = {
    "block": "<div>x ",
    "paragraph": "<p>x ",
    "inline": "<b>x ",
    "both": "<b><p>x ",
    "attributes": "<font color={}>x ",
    "links": "<a href={}>x ",
    "tables": "<table><tr><td>x ",
    "lists": "<ul><li>x ",
    "end tags of another": "<div></b>x ",
    "comments without end": "<!-- x ",
    "tags without end": "<div ",
    "quotes without end": "<a href='",
    "entities": "&amp",
    "a page": "<div><h2>x</h2><p>text of <b>some</b> length &amp; a <a href='{}'>link</a></p></div>\n",
}


def seconds(text: str) -> float:
    """CPU time of one call."""
    start = time.process_time()
    strip_html(text)
    return time.process_time() - start


if __name__ == "__main__":
    for kind, tag in KINDS.items():
        texts = ["<p>" + "".join(tag.replace("{}", str(number)) for number in range(size)) for size in SIZES]
        print(f"{kind:<22}{len(texts[-1]) / 1e6:>6.2f} MB", *(f"{seconds(text):>8.3f}" for text in texts))
