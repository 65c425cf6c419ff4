"""Answers a second of the live camera, and their lag.

Chromium's own camera, 640 x 480, is answered by both networks and shown in k colours; then for two visitors at once.
The lag of an answer is the time from taking its frame to drawing it.
"""

import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence

from measuring import machine, parser, publish, serve, shown, table
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PATIENCE = 60_000  # milliseconds until the first answer; the networks are loaded for it


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="a second each, once", weights=True)
    options.add_argument("--task", default="hands", help="(default: hands)")
    args = options.parse_args(arguments)
    rates, lags = defaultdict(list), defaultdict(list)
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with serve(args.weights) as page, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM))
        visitors = [browser.new_context().new_page() for _ in range(2)]
        for visitor in visitors:
            visitor.goto(f"{page.url}?task={args.task}")
        for _ in range(1 if args.quick else 3):
            for name, watching, view, colors in (
                ("both networks", visitors[:1], "Overlay", 8),
                ("8 colours", visitors[:1], "Colours", 8),
                ("64 colours", visitors[:1], "Colours", 64),
                ("both networks, for each of two visitors", visitors, "Overlay", 8),
            ):
                for rate, found in watch(watching, view, colors, 1.0 if args.quick else 8.0):
                    rates[name].append(rate)
                    lags[name] += found
        browser.close()
    rows = []
    for name in rates:
        late = sorted(lags[name])[int(0.95 * len(lags[name]))]
        lag = f"{statistics.median(lags[name]):.2f} s (95 % within {late:.2f} s)"
        rows.append((name, shown(rates[name], unit="", digits=1), lag))
    text = f"{machine('torch', 'gradio', 'playwright')}. {args.task}."
    publish("camera", text, table(("", "answers a second", "lag"), rows), write=args.write)


def watch(visitors: Sequence[Page], view: str, colors: int, seconds: float) -> list[tuple[float, list[float]]]:
    """Answers a second and lags in seconds, of each visitor."""
    for visitor in visitors:
        visitor.locator("#colours input[type=number]").fill(str(colors))
        visitor.get_by_role("switch", name="Live").click()
        expect(visitor.locator("#live .pace")).to_contain_text("a second", timeout=PATIENCE)
        visitor.locator("#live label", has_text=view).click()
    visitors[0].wait_for_timeout(1500)  # what was on the way when the view changed
    for visitor in visitors:
        visitor.evaluate("performance.clearMeasures('live answer')")
    start = time.perf_counter()
    visitors[0].wait_for_timeout(1000 * seconds)
    found = []
    for visitor in visitors:
        visitor.wait_for_function("performance.getEntriesByName('live answer').length", timeout=PATIENCE)
        lags = visitor.evaluate("performance.getEntriesByName('live answer').map((m) => m.duration / 1000)")
        found.append((len(lags) / (time.perf_counter() - start), lags))
    for visitor in visitors:
        visitor.get_by_role("button", name="Stop the camera").click()
    return found


if __name__ == "__main__":
    main()
