"""Take the screenshots of `hf-gradalign demo` that docs/verdicts.md shows, with the system's Chromium.

python scripts/take_page_screenshots.py runs/my-run --output_dir docs/images

Needs Gradio and playwright (the extra `dev`).
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from hf_gradalign.demo import make_demo

_WIDTHS = {"page.png": 1180, "page_phone.png": 390}
_EXAMPLE = "Genuine, then fake"
_COLORS = 64  # with so few, the files are a quarter of the size


def main(argv: Sequence[str]) -> int:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a detector, as for hf-gradalign demo")
    parser.add_argument("--output_dir", type=Path, required=True, help="where to put the PNG files")
    arguments = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("there is no Chromium: apt-get install chromium")
    demo = make_demo([arguments.model], device="cpu")
    demo.launch(prevent_thread_lock=True, quiet=True)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width in _WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": 700})
            page.goto(str(demo.local_url))
            page.get_by_role("button", name=_EXAMPLE).click()
            page.get_by_role("button", name="Play", exact=True).wait_for()
            page.get_by_role("button", name="Check the recording").click()
            page.locator(".verdict").wait_for()
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)  # for the waveform, and for what fades
            # Up to the card, which is long.
            bottom = page.locator(".model-facts").first.evaluate("facts => facts.getBoundingClientRect().bottom + 4")
            image = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": bottom}, full_page=True)
            few_colors = Image.open(BytesIO(image)).convert("RGB").quantize(_COLORS)
            few_colors.save(arguments.output_dir / name, optimize=True)
            page.close()
        browser.close()
    demo.close(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
