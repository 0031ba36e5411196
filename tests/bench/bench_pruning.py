"""What pruning and training in int8 give: against the best post-training int8 of the teacher, in the same turns.

By hand, an hour or two: ``EDGEKIT_DATA=… python tests/bench/bench_pruning.py OUT [RECIPE …] [--set KEY=VALUE]``. The
teacher of the first recipe is deployed alone, then each recipe (default: examples/cifar10/whole.toml) as it is; every
bundle is measured beside the teacher's. Accuracy is on the test set, drops are from the teacher in float, paired. What
is there in OUT from an earlier run is not done again. OUT/pareto.svg draws accuracy against latency of all that ship.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgekit import reporting
from edgekit.comparing import Settings, compare
from edgekit.pipeline import deploy
from edgekit.recipe import load_recipe, recipe_file
from edgekit.reporting.pictures_pareto import draw_pareto, pareto_of
from edgekit.reporting.tables import interval, percent, shipped_of

PAGE = Path(reporting.__file__).parent / "page" / "page.css"
WHOLE = Path(__file__).parents[2] / "examples" / "cifar10" / "whole.toml"


def told(step: str, done: int, total: int, note: str = "") -> None:
    if done in (0, total) or done % 200 == 0:
        print(f"{step}: {done}/{total} {note}", flush=True)


def run(path: Path, out: Path, overrides: list[str], *, alone: bool) -> dict[str, Any]:
    """Deploys a recipe, or its teacher as it is."""
    recipe = load_recipe(path, overrides)
    if alone:
        recipe = recipe.model_copy(update={"student": None, "pruning": None, "qat": None})
    return deploy(recipe, recipe_file(path).resolve().parent, out, progress=told)


def row(name: str, report: dict[str, Any], ratio: str) -> str:
    target = report["targets"][0]
    shipped = shipped_of(target)
    if shipped is None:
        return f"{name:<14} nothing ships: {target['why']}"
    proof = shipped["proof"]
    parameters = report["models"]["student"]["parameters"]
    score, drop = percent(proof["artifact"]), interval(proof["drop"])
    return f"{name:<14} {shipped['plan']:<26} {parameters:>9,}  {score:>7}  {drop:<24} {ratio}"


def candidate(name: str, report: dict[str, Any], times: dict[str, float]) -> dict[str, Any]:
    """What ships of a report, by the recipe's name and with the median that was measured in turns."""
    shipped = shipped_of(report["targets"][0])
    assert shipped is not None, f"nothing ships of {name}"
    measured = {"application": {"percentiles": {"50.0": times}}}
    return shipped | {"plan": f"{name}, {shipped['plan']}", "measured": measured, "shipped": False}


def draw(candidates: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against latency, as a picture that stands alone."""
    drawn = str(draw_pareto(pareto_of({"candidates": candidates, "limits": {}}), "bench"))
    head, _, rest = drawn.partition(">")
    path.write_text(f"{head}><style>{PAGE.read_text(encoding='utf-8')}</style>{rest}\n", encoding="utf-8")
    print(f"picture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("recipes", type=Path, nargs="*", default=[WHOLE])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args()
    teacher = run(chosen.recipes[0], chosen.out / "teacher", [], alone=True)
    rows, candidates = [row("teacher", teacher, "1")], []
    for path in chosen.recipes:
        name = load_recipe(path).name
        report = run(path, chosen.out / name, chosen.overrides, alone=False)
        bundles = [chosen.out / folder / report["targets"][0]["target"] for folder in ("teacher", name)]
        pair = compare(bundles, settings=Settings(seconds=10.0))["pairs"][0]
        median = pair["ratios"][0]
        rows.append(row(name, report, f"{median['ratio']:.3f} [{median['low']:.3f}, {median['high']:.3f}]"))
        if not candidates:
            candidates.append(candidate("teacher", teacher, {"ms": median["base_ms"]}))
        base_ms = candidates[0]["measured"]["application"]["percentiles"]["50.0"]["ms"]
        ends = {"ms": "ratio", "lower_ms": "low", "upper_ms": "high"}
        candidates.append(candidate(name, report, {end: base_ms * median[of] for end, of in ends.items()}))
    print(f"\n{'':<14} {'ships':<26} {'params':>9}  {'score':>7}  {'drop, points':<24} p50 / teacher's int8")
    print("\n".join(rows))
    draw(candidates, chosen.out / "pareto.svg")


if __name__ == "__main__":
    main()
