"""The page in a real browser: it loads nothing, fits a telephone, and its tables sort."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_pruning import PRUNINGS
from sample_report import SHAPES, sample_report
from sample_sensitivity import SENSITIVITIES

from edgekit.reporting.html import to_html, to_html_many
from edgekit.reporting.html_pruning import pruning_page
from edgekit.reporting.sensitivity import sensitivity_html

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'edgekit[dev]'")

from browser import CHROMIUM, chromium, opened

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")

# Colours as a browser computes them, down to what is behind the text: [text, behind], each 0 to 255.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script, svg, [aria-hidden=true], [hidden]")) continue;
    if (!element.checkVisibility() || element.closest(".unseen, .skip")) continue;
    let behind = element;
    while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
    found.push([element.className + ": " + node.textContent.trim().slice(0, 30), rgba(getComputedStyle(element).color),
      rgba(getComputedStyle(behind || document.body).backgroundColor)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every shape of report and of sensitivity, and some of pruning, as a file, by name: its address."""
    folder: Path = tmp_path_factory.mktemp("pages")
    made = {name: to_html(make()) for name, make in SHAPES.items()}
    made["many"] = to_html_many([sample_report(4), SHAPES["several_targets"]()])
    made |= {f"sensitivity_{name}": sensitivity_html(make()) for name, make in SENSITIVITIES.items()}
    made |= {f"pruning_{name}": pruning_page(PRUNINGS[name](), "flowers") for name in ("near", "estimated", "diverged")}
    addresses = {}
    for name, html in made.items():
        path = folder / f"{name}.html"
        path.write_text(html, encoding="utf-8")
        addresses[name] = path.as_uri()
    return addresses


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        pytest.param(360, True, id="360-dark"),
        pytest.param(1280, False, id="1280-light"),
        pytest.param(360, False, id="360-light", marks=pytest.mark.slow),
        pytest.param(1280, True, id="1280-dark", marks=pytest.mark.slow),
    ],
)
def test_every_shape_opens_quietly_and_fits(browser, pages, width, dark):
    for name, address in pages.items():
        with opened(browser, address, width=width, dark=dark) as (page, wrong):
            scrolls, shown = page.evaluate(
                "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
            )
            assert scrolls <= shown, f"{name}: {scrolls} px of {shown}"
            assert page.locator("h1").count() == 1
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(15, 20, 26)") == dark
            assert wrong == [], name


def column(page: Any, table: str, name: str) -> list[str]:
    heads = page.locator(f"#{table} thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.strip().startswith(name))
    return [row.locator("th, td").nth(place).inner_text().strip() for row in page.locator(f"#{table} tbody tr").all()]


def figures(cells: list[str]) -> list[float]:
    return [float(cell.split()[0].rstrip("%").replace(",", "")) for cell in cells if cell[:1].isdigit()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_click_on_a_heading_sorts_by_number(browser, pages, dark):
    with opened(browser, pages["thirty"], width=1280, dark=dark) as (page, wrong):
        table = "r1-t1-latencies"
        head = page.locator(f"#{table} thead th", has_text="mean ms")
        before = figures(column(page, table, "mean ms"))
        assert before != sorted(before)
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert figures(column(page, table, "mean ms")) == sorted(before)
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert figures(column(page, table, "mean ms")) == sorted(before, reverse=True)
        assert wrong == []


def test_numbers_are_not_sorted_as_text_and_what_is_unknown_stays_last(browser, pages):
    with opened(browser, pages["thirty"], width=1280) as (page, _):
        table = "r1-t1-candidates"
        for direction in (False, True):
            page.locator(f"#{table} thead button", has_text="p99 ms").click()
            cells = column(page, table, "p99 ms")
            assert cells[-2:] == ["\N{EN DASH}"] * 2
            assert figures(cells) == sorted(figures(cells), reverse=direction)
        assert max(figures(cells)) >= 10  # "10.67" comes before "2.177" as text


def test_the_keyboard_sorts_too(browser, pages):
    with opened(browser, pages["passes"], width=1280) as (page, _):
        table = "r1-t1-candidates"
        button = page.locator(f"#{table} thead button", has_text="p50 ms")
        button.focus()
        page.keyboard.press("Enter")
        assert figures(column(page, table, "p50 ms")) == sorted(figures(column(page, table, "p50 ms")))
        page.keyboard.press("Space")
        assert page.locator(f"#{table} thead th[aria-sort=descending]").count() == 1
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "p90 ms"


def test_a_point_says_what_it_is_to_pointer_and_keyboard(browser, pages):
    with opened(browser, pages["passes"], width=1280) as (page, wrong):
        point = page.locator("svg.wide g.tip[tabindex]").last
        for show in (point.hover, point.focus):
            show()
            said = page.locator(".bubble").inner_text()
            assert "openvino int8" in said
            assert "ms" in said
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement.blur()")
            assert page.locator(".bubble").is_hidden()
        assert wrong == []


def test_a_group_says_what_it_is_to_pointer_and_keyboard(browser, pages):
    with opened(browser, pages["sensitivity_eight"], width=1280) as (page, wrong):
        group = page.locator("svg.wide g.tip").nth(1)
        for show in (group.hover, group.focus):
            show()
            said = page.locator(".bubble").inner_text()
            assert "0.94 [0.93, 0.95] of fp32's time" in said
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement.blur()")
        assert wrong == []


def test_groups_sort_by_a_click(browser, pages):
    with opened(browser, pages["sensitivity_eight"], width=1280) as (page, _):
        page.locator("#groups thead button", has_text="time of fp32").click()
        cells = column(page, "groups", "time of fp32")
        assert figures(cells) == sorted(figures(cells))
        assert cells[-1] == "\N{EN DASH}"


@pytest.mark.parametrize(
    "shape",
    [
        "thirty",
        "searched",
        "sensitivity_eight",
        "sensitivity_hostile",
        "kept",
        "kept_many",
        "kept_hostile",
        "pruned",
        "pruned_crowd",
        "pruning_near",
        "pruning_diverged",
    ],
)
def test_text_of_pictures_stays_in_them_and_apart(browser, pages, shape):
    """Names of one picture do not meet, and none leaves its card."""
    found = """(size) => [...document.querySelectorAll(`svg.${size}`)].flatMap((svg) => {
      const frame = svg.closest(".card").getBoundingClientRect();
      const texts = [...svg.querySelectorAll("text.label, text.value, text.reference-name, text.budget-name")];
      const boxes = texts.map((t) => [t.textContent, t.getBoundingClientRect()]);
      const out = boxes.filter(([, b]) => b.left < frame.left || b.right > frame.right).map(([t]) => t);
      boxes.forEach(([a, x], i) => boxes.slice(i + 1).forEach(([b, y]) => {
        const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);
        const high = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
        if (wide > 1 && high > 4) out.push(`${a} / ${b}`);
      }));
      return out;
    })"""
    for width, size in ((1280, "wide"), (360, "narrow")):
        with opened(browser, pages[shape], width=width) as (page, _):
            assert page.evaluate(found, size) == [], size


def test_the_picture_that_fits_is_shown(browser, pages):
    for width, shown, hidden in ((1280, "wide", "narrow"), (360, "narrow", "wide")):
        with opened(browser, pages["passes"], width=width) as (page, _):
            assert page.locator(f"svg.{shown}").first.is_visible()
            assert not page.locator(f"svg.{hidden}").first.is_visible()


def test_labels_of_a_picture_do_not_meet(browser, pages):
    meeting = """(size) => {
      const boxes = [...document.querySelectorAll(`svg.${size}[role=group] text.label`)]
        .map((t) => [t.textContent, t.getBoundingClientRect()]);
      const found = [];
      boxes.forEach(([a, x], i) => boxes.slice(i + 1).forEach(([b, y]) => {
        const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);
        const high = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
        if (wide > 1 && high > 3) found.push(`${a} / ${b}`);
      }));
      return [boxes.length, found];
    }"""
    for width, size in ((1280, "wide"), (360, "narrow")):
        with opened(browser, pages["thirty"], width=width) as (page, _):
            labels, found = page.evaluate(meeting, size)
            assert labels >= 8
            assert found == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("shape", ["several_targets", "unsteady", "searched", "sensitivity_eight", "kept", "pruned"])
def test_text_stands_out_as_wcag_aa_asks(browser, pages, shape, dark):
    with opened(browser, pages[shape], width=1280, dark=dark) as (page, _):
        found = page.evaluate(CONTRASTS)
    assert len(found) > 80
    for said, ink, paper in found:
        assert contrast(ink[:3], paper[:3]) >= 4.5, said


def contrast(ink: list[int], paper: list[int]) -> float:
    """WCAG 2.2 contrast ratio of two sRGB colours."""
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[int]) -> float:
    parts = [v / 255 for v in colour]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_it_prints_light_and_whole(browser, pages):
    with opened(browser, pages["thirty"], width=1280, dark=True) as (page, _):
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("#r1-t1-other-limits tbody tr").last.is_visible()
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_icon_is_in_the_page(browser, pages):
    assert shutil.which(str(CHROMIUM))
    with opened(browser, pages["passes"], width=1280) as (page, wrong):
        icon = page.locator("link[rel=icon]").get_attribute("href")
        size = page.evaluate("(src) => new Promise((r, e) => { const i = new Image(); i.onload = () => r(i.width); "
                             "i.onerror = e; i.src = src; })", icon)  # fmt: skip
        assert size > 0
        assert wrong == []
