"""Writes docs/report.png: two parts of a real report, of a run on the embedded set.

python experiments/report_picture.py [RUN]

Without RUN it trains and evaluates one first (the default recipe, 450 steps). It needs Chromium and Playwright
(pip install playwright), which nothing else here does.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from barlow.evaluation import evaluate
from barlow.pretraining import pretrain
from barlow.report import write_report

PICTURE = Path(__file__).parents[1] / "docs" / "report.png"
WIDTH, HEIGHT, GAP = 1020, 1400, 24
SHOWN = 0.66
"""Of the size on a screen."""
COLOURS = 256
"""So that the file stays below 300 kB."""


def trained() -> Path:
    """A run on the embedded set, measured."""
    out = Path(tempfile.mkdtemp()) / "shapes"
    run = pretrain("shapes", out, recipe="small_w_mse", steps=450, tell=print).run_folder
    evaluate(run, protocols=["knn", "logistic"], tell=print)
    return run


def screens(page: Path) -> list[Image.Image]:
    """The top of the page, and the page from its map on."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        opened.wait_for_timeout(500)
        found = [opened.screenshot()]
        opened.locator("#map").evaluate("part => part.scrollIntoView()")
        canvas = opened.locator(".map canvas")
        canvas.focus()
        for key in ("ArrowRight", "ArrowUp"):
            opened.keyboard.press(key)
        canvas.evaluate("map => map.blur()")
        opened.wait_for_timeout(300)
        found.append(opened.screenshot())
        browser.close()
    return [Image.open(io.BytesIO(each)).convert("RGB") for each in found]


def main(words: list[str]) -> None:
    run = Path(words[0]) if words else trained()
    with tempfile.TemporaryDirectory() as folder:
        parts = screens(write_report(run, Path(folder) / "report.html", tell=print))
    whole = Image.new("RGB", (2 * WIDTH + GAP, HEIGHT), (217, 221, 226))
    for i, part in enumerate(parts):
        whole.paste(part, (i * (WIDTH + GAP), 0))
    small = whole.resize((round(whole.width * SHOWN), round(whole.height * SHOWN)), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
