"""Answers a second of the live camera, and their lag, in a real browser.

    python benchmarks/camera.py                 a Markdown table
    python benchmarks/camera.py --write         and into docs/benchmarks.md
    python benchmarks/camera.py --quick         a second each, once

Chromium's own camera, a moving picture of 640 x 480, is answered by both networks for hands and shown in 8 and 64
colours; then by both networks for two visitors at once. The lag of an answer is the time from taking its frame to
drawing it.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence

from measuring import machine, parser, publish, serve, table
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PATIENCE = 60_000  # milliseconds until the first answer; the networks are loaded for it


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="a second each, once", weights=True)
    options.add_argument("--task", default="hands", help="(default: hands)")
    args = options.parse_args(arguments)
    rounds, seconds = (1, 1.0) if args.quick else (3, 8.0)
    header = machine("torch", "gradio", "playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    runs: dict[str, list[tuple[float, list[float]]]] = {}
    with serve(args.weights) as page, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM))
        visitors = [browser.new_context().new_page() for _ in range(2)]
        for visitor in visitors:
            visitor.goto(f"{page.url}?task={args.task}")
        alone = visitors[:1]
        for _ in range(rounds):
            for name, watching, view, colors in (
                ("both networks", alone, "Overlay", 8),
                ("8 colours", alone, "Colours", 8),
                ("64 colours", alone, "Colours", 64),
                ("both networks, for each of two visitors", visitors, "Overlay", 8),
            ):
                runs.setdefault(name, []).extend(watch(watching, view, colors, seconds))
        browser.close()
    rows = [(name, *shown(found)) for name, found in runs.items()]
    publish("camera", f"{header}. {args.task}.\n\n{table(('', 'answers a second', 'lag'), rows)}", write=args.write)


def watch(visitors: Sequence[Page], view: str, colors: int, seconds: float) -> list[tuple[float, list[float]]]:
    """Answers a second and lags in seconds, for each visitor.

    While all of them have the camera on.
    """
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


def shown(runs: Sequence[tuple[float, list[float]]]) -> tuple[str, str]:
    """Summarise the answers a second and the lags of all runs.

    Median and range over the runs; median and 95th percentile of all lags.
    """
    rates, lags = [rate for rate, _ in runs], sorted(lag for _, lags in runs for lag in lags)
    late = lags[int(0.95 * len(lags))]
    return (
        f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})",
        f"{statistics.median(lags):.2f} s (95 % within {late:.2f} s)",
    )


if __name__ == "__main__":
    main()
