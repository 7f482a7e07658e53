"""Opens a page in a real headless browser: what it says on the console, what it draws, and a picture of it."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_MEASURE = """<script>
addEventListener("load", () => {
  const drawn = [...document.querySelectorAll("figure")].map(figure => {
    const box = figure.querySelector("svg").getBoundingClientRect();
    const shapes = [...figure.querySelectorAll("svg path")].map(path => path.getBoundingClientRect());
    return {caption: figure.querySelector("figcaption").textContent, width: box.width, height: box.height,
            shapes: shapes.filter(shape => shape.width * shape.height > 4).length,
            texts: figure.querySelectorAll("svg text").length};
  });
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const found = document.createElement("pre");
  found.id = "measured";
  found.textContent = JSON.stringify({drawn, wide, asked: performance.getEntriesByType("resource").length});
  document.body.append(found);
});
</script>"""


def chromium() -> str:
    """The browser; the test is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    return found


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        chromium(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    command += [f"--user-data-dir={folder / 'browser'}", "--window-size=1280,2600", "--virtual-time-budget=3000"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)


def opened(page: Path) -> tuple[dict, list[str]]:
    """What the browser measured of each figure of a page, and the lines of its console.

    The page has no script; the copy that is opened gets one that measures.
    """
    copy = page.with_name(f"measured-{page.name}")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{_MEASURE}</body>"), encoding="utf-8")
    done = _run(page.parent, "--dump-dom", copy.as_uri())
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the browser did not show the page: {done.stderr[-2000:]}"
    return json.loads(unescape(found.group(1))), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def picture(page: Path, file: Path) -> None:
    """A screenshot of the page as it is."""
    done = _run(page.parent, f"--screenshot={file}", page.as_uri())
    assert file.exists(), done.stderr[-2000:]
