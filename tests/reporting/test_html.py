"""The page's structure, its escaping, and that its figures are the report's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from sample_report import HOSTILE, SHAPES, hostile_report, sample_report

from edgekit.reporting.html import to_html, to_html_many
from edgekit.reporting.tables import facts, host_text, milliseconds
from edgekit.reporting.validation import validate_report

VOID = {"meta", "link", "br", "img", "input", "hr"}
# Elements that may hold what a browser would run or load.
ALLOWED_ONCE = {"script", "style", "link"}


class Page(HTMLParser):
    """Elements, text and identities of a page; fails on an element that is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_a_whole_page_that_loads_nothing(shape):
    html = to_html(SHAPES[shape]())
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert all(len(page.all(name)) == 1 for name in ALLOWED_ONCE)
    assert page.all("img") == page.all("iframe") == page.all("object") == []
    assert page.all("link")[0]["href"].startswith("data:image/svg+xml,")
    addresses = re.findall(r"https?://[^\s\"'<]*", html)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))
    assert not [a for _, a in page.elements if "style" in a or any(key.startswith("on") for key in a)]
    html.encode("utf-8")


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "nulls"])
def test_the_sample_reports_are_right_by_the_schema(shape):
    report = SHAPES[shape]()
    validate_report(report, shape)


def test_headings_go_down_a_level_at_a_time():
    for shape in SHAPES.values():
        levels = [int(name[1]) for name, _ in Page(to_html(shape())).elements if re.fullmatch(r"h[1-6]", name)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize(
    ("shape", "word"),
    [("passes", "Pass"), ("failing", "Fail"), ("unsteady", "Inconclusive"), ("not_measured", "Not measured")],
)
def test_the_verdict_comes_first(shape, word):
    report = SHAPES[shape]()
    text = Page(to_html(report)).text
    target = report["targets"][0]
    at = text.index(f" {word} ")
    assert at < text.index("Accuracy against latency") < text.index("How to reproduce")
    assert text.index(target["target"]) < text.index("Accuracy against latency")
    assert text.index(target["why"]) < text.index("Accuracy against latency")


def test_the_sections_are_in_their_order():
    text = Page(to_html(sample_report(4, failed=1))).text
    sections = ["Pass", "Accuracy against latency", "Distribution:", "Over the run:", "All candidates",
                "What every step gained and lost", "Limits of what ships", "Candidates", "Loading and memory",
                "Host before and after", "Failures 5.", "How to reproduce"]  # fmt: skip
    places = [text.index(section) for section in sections]
    assert places == sorted(places)


def test_figures_are_the_reports():
    report = sample_report(4)
    page = Page(to_html(report))
    target = report["targets"][0]
    for c in target["candidates"]:
        for found in c["measured"]["application"]["percentiles"].values():
            assert milliseconds(found["ms"]) in page.text
        assert f"{c['size_mb']:.2f}" in page.text
        drop = c["proof"]["drop"]
        assert (
            f"{drop['points']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}]".replace("-", "\N{MINUS SIGN}") in page.text
        )
    for step in target["steps"]:
        assert milliseconds(step["p50_ms"]) in page.text
        assert f"{100 * step['score']:.2f}%" in page.text
    given = report["reproduce"]
    for value in (given["command"], given["recipe_sha256"], *given["versions"].values(), *given["hashes"].values()):
        assert value in page.text


def test_the_device_that_measured_is_named():
    report = sample_report(2)
    device = {"name": "bench <board>", "host": report["host"] | {"cpu_model": "A CPU over there", "cores": 3}}
    report["targets"][0]["device"] = device
    assert "bench <board>: A CPU over there, 3 cores" in Page(to_html(report)).text
    name = report["targets"][0]["target"]
    validate_report(report, "with a device")
    assert ("measured on", f"bench <board>: {host_text(device['host'])}") in facts(report, report["targets"][0])
    assert f"{name} measured on" in Page(to_html(report)).text
    assert "on bench <board>" in Page(to_html(report)).text, "beside the verdict, too"


def test_no_figure_is_made_up():
    """Every number with decimals is one of the report's, rounded, or what a step gained or lost."""
    report = sample_report(2)
    bare = json.loads(json.dumps(report))
    for c in bare["targets"][0]["candidates"]:
        for picture in ("histogram", "timeline", "warm_up"):
            del c["measured"][picture]
    known = {abs(float(n)) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", json.dumps(bare))}
    steps = report["targets"][0]["steps"]
    known |= {a[key] / b[key] for key in ("size_mb", "p50_ms") for a in steps for b in steps}
    known |= {abs(a["score"] - b["score"]) for a in steps for b in steps}
    known |= {100 * value for value in known}
    # Ticks are round numbers of the axes, not figures of the run.
    page = Page(re.sub(r'<text[^>]*class="tick"[^>]*>[^<]*</text>', "", to_html(report)))
    shown = re.findall(r"(?<![\w.:-])\d+\.\d+(?![\w.:-])", page.text.replace(",", ""))
    assert len(shown) > 50
    for word in shown:
        decimals = len(word.partition(".")[2])
        assert any(abs(value - float(word)) <= 0.501 * 10.0**-decimals for value in known), word


def test_what_is_hostile_is_shown_and_not_run():
    html = to_html(hostile_report())
    page = Page(html)
    assert "<script>alert" not in html
    assert "<img" not in html
    assert html.count("<script") == html.count("</script>") == 1
    assert html.count("</title></style>") == 0
    assert "49" not in page.text.split("Accuracy against latency")[0].split("{{ 7*7 }}")[0]
    shown = HOSTILE.replace("\u202e\x00\ud800", "\N{REPLACEMENT CHARACTER}" * 3)
    assert shown in "".join(page.words)


def test_the_policy_allows_the_pages_own_script_and_style_only():
    html = to_html(sample_report(1))
    policy = next(a["content"] for a in Page(html).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        inner = re.search(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)
        assert inner
        digest = base64.b64encode(hashlib.sha256(inner[1].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_pictures_have_names_and_come_wide_and_narrow():
    page = Page(to_html(sample_report(4)))
    pictures = page.all("svg")
    assert all(picture["aria-label"] and picture["role"] in ("img", "group") for picture in pictures)
    for size in ("wide", "narrow"):
        assert sum(size in picture["class"].split() for picture in pictures) == 7


def test_a_table_sorts_by_the_values_behind_its_cells():
    report = sample_report(4)
    page = Page(to_html(report))
    values = [float(a["data-value"]) for a in page.all("td") if "data-value" in a and "number" in a.get("class", "")]
    sizes = [c["size_mb"] for c in report["targets"][0]["candidates"]]
    assert set(sizes) <= set(values)
    assert all(a["aria-sort"] == "none" for a in page.all("th") if "aria-sort" in a)


def test_candidates_without_a_latency_are_listed_beside_the_picture():
    text = Page(to_html(SHAPES["unsteady"]())).text
    assert "Not in the picture: 1. onnxruntime fp32 , no latency" in text


def test_drift_and_spoiling_are_told_at_the_verdict():
    head = Page(to_html(SHAPES["unsteady"]())).text.split("Accuracy against latency")[0]
    assert "Drift. the second half is 18% slower than the first" in head
    assert "Spoiled. other processes used 23% of the CPUs" in head


def test_a_refused_candidate_says_why():
    assert "refused p99.9 needs 6,636 queries: 74 s; max_seconds is 60" in Page(to_html(SHAPES["unsteady"]())).text


def test_nothing_ships_says_so():
    text = Page(to_html(SHAPES["failing"]())).text
    assert "Nothing ships" in text
    assert text.count("Non-zero status code returned") == 3


def test_several_runs_lead_with_a_table_of_all_verdicts():
    reports = [sample_report(4, name="first"), SHAPES["several_targets"]()]
    page = Page(to_html_many(reports))
    overview = page.text[: page.text.index("profile realtime-120fps")]
    assert page.text.startswith("2 runs")
    assert overview.count("pass") >= 2
    assert "not measured" in overview
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))


def test_a_report_of_version_1_is_still_shown():
    report = sample_report(2)
    del report["reproduce"]
    report["schema_version"] = 1
    target = report["targets"][0]
    del target["steps"]
    for c in target["candidates"]:
        new = ("cold_load_ms", "cached_load_ms", "first_inferences_ms", "warm_up", "drift", "spoiled", "caveats")
        for key in (*new, "conditions", "histogram", "timeline"):
            del c["measured"][key]
    text = Page(to_html(report)).text
    assert report["command"] in text
    assert "Nothing is known of the steps." in text


def test_thirty_candidates_stay_small():
    assert len(to_html(sample_report(30)).encode()) < 1_500_000
