"""How large the page of 30 candidates is and how soon it stands, in the system's headless Chromium.

By hand: ``python tests/bench/bench_html.py [CANDIDATES [OPENINGS]]``. The figures to keep, for 30 candidates: at most
1.5 MB, at most 1 s to load and first paint, no console errors, no horizontal scroll at 360 px. Exits 1 where one is
not kept.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).parents[1] / "reporting"))

from browser import chromium, opened
from sample_report import sample_report

from edgekit.reporting.html import to_html

MOST_MB = 1.5
MOST_MS = 1000.0
# Both from the start of the navigation, as the browser itself measures them.
TIMES = """() => new Promise((done) => {
  const answer = () => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    const load = performance.getEntriesByType("navigation")[0].loadEventEnd;
    if (paint && load) done([load, paint.startTime]); else requestAnimationFrame(answer);
  };
  answer();
})"""


def main(candidates: int, openings: int) -> int:
    """Opens the page many times, each in a fresh context, and prints the table."""
    report = sample_report(candidates)
    started = perf_counter_ns()
    html = to_html(report)
    made_ms = (perf_counter_ns() - started) / 1e6
    size_mb = len(html.encode()) / 1e6
    print(f"{candidates} candidates: {size_mb:.3f} MB (limit {MOST_MB}), made in {made_ms:.0f} ms")
    good = size_mb <= MOST_MB
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        print(f"Chromium {browser.version}, {openings} openings each, medians")
        path = Path(folder) / "report.html"
        print(f"{'px':>6}{'theme':>7}{'load ms':>10}{'first paint ms':>16}{'worst':>8}{'scrolls':>9}{'errors':>8}")
        path.write_text(html, encoding="utf-8")
        for width, dark in ((360, False), (360, True), (1280, False), (1280, True)):
            times, scrolls, errors = [], False, 0
            for _ in range(openings):
                with opened(browser, path.as_uri(), width=width, dark=dark) as (page, wrong):
                    times.append(page.evaluate(TIMES))
                    element = "document.scrollingElement"
                    scrolls |= page.evaluate(f"{element}.scrollWidth > {element}.clientWidth")
                    errors += len(wrong)
            load, paint = (statistics.median(part) for part in zip(*times, strict=True))
            worst = max(max(pair) for pair in times)
            good &= worst <= MOST_MS and not scrolls and not errors
            theme = "dark" if dark else "light"
            print(f"{width:>6}{theme:>7}{load:>10.0f}{paint:>16.0f}{worst:>8.0f}{scrolls!s:>9}{errors:>8}")
    print("good" if good else f"not good: the limit is {MOST_MS:.0f} ms, no scrolling, no errors")
    return 0 if good else 1


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:]]
    sys.exit(main(*(given + [30, 10][len(given) :])))
