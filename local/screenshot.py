"""README's picture of the page: python -m local.screenshot, or `make screenshot`."""

import argparse
import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from local.live import run_live
from local.page import serve
from local.pipeline import ROOT, parse_options

BROWSERS = (
    "chromium",
    "google-chrome",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
BROKEN = range(24, 32)  # seconds in which Datadog answers 503
DROPPED = {5: "mapped", 12: "bad", 14: "mapped", 18: "gzip", 22: "mapped", 30: "mapped"}


def find_browser() -> str | None:
    """Return the path of a browser on this machine."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def main() -> int:
    """Press the page's own buttons for some seconds, then write what it shows."""
    parser = argparse.ArgumentParser("python -m local.screenshot", description=__doc__)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/page.png")
    parser.add_argument("--seconds", type=int, default=40, help="how long the story takes")
    parser.set_defaults(port=0, outputs=ROOT / "local.outputs.json")
    options = parse_options(parser, None)
    if not (browser := find_browser()):
        parser.error("no Chromium or Chrome on this machine: apt install chromium")
    variables = {"jobs": {}, "metrics": {"seconds": {"unit": "second"}}, "buckets": {}}
    with (
        run_live(options, variables) as live,
        serve(live, 0) as url,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=browser) as chromium,
    ):
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.goto(url)
        for second in range(options.seconds):
            press = ["good", DROPPED[second]] if second in DROPPED else []
            press += ["good"] if second % 3 else []
            if second in (BROKEN.start, BROKEN.stop):
                press.append("503: down" if second in BROKEN else "202: all is well")
            for button in press:
                page.get_by_role("button", name=button, exact=True).click()
            time.sleep(1)
        page.screenshot(path=options.picture)
    print(f"{options.picture} is drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
