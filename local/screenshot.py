"""README's picture of the page: python -m local.screenshot, or `make screenshot`."""

import argparse
import sys
import time
from pathlib import Path

from local.browser import Browser, find_browser
from local.live import run_live
from local.page import serve
from local.pipeline import ROOT, parse_options

WIDTH, HEIGHT = 1400, 900
BROKEN = range(24, 32)  # seconds in which Datadog answers 503
DROPPED = {5: "mapped", 12: "cut short", 14: "mapped", 18: "gzip", 22: "mapped", 30: "mapped"}


def main() -> int:
    """Play a story with the page's own buttons, and write what is seen in the end."""
    parser = argparse.ArgumentParser("python -m local.screenshot", description=__doc__)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/page.png")
    parser.add_argument("--seconds", type=int, default=40, help="how long the story takes")
    parser.set_defaults(port=0, outputs=ROOT / "local.outputs.json")
    options = parse_options(parser, None)
    if not (path := find_browser()):
        parser.error("no Chromium or Chrome on this machine: apt install chromium")
    variables = {"jobs": {}, "metrics": {"seconds": {"unit": "second"}}, "buckets": {}}
    with run_live(options, variables) as live, serve(live, 0) as url, Browser(path) as browser:
        browser.look(url, WIDTH, HEIGHT)
        for second in range(options.seconds):
            press = ["/drop/nested", f"/drop/{DROPPED[second]}"] if second in DROPPED else []
            press += ["/drop/nested"] if second % 3 else []
            if second in (BROKEN.start, BROKEN.stop):
                press.append("/datadog/503" if second in BROKEN else "/datadog/202")
            for button in press:
                browser.evaluate(f"document.querySelector('[data-post=\"{button}\"]').click()")
            time.sleep(1)
        browser.picture(options.picture)
    print(f"{options.picture} is drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
