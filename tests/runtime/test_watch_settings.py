"""How a manifest says that its bundle is watched: what edgekit did not write is refused, and named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from watched import watched_bundle

from edgekit.errors import BundleError, EdgeKitError
from edgekit.runtime import open_bundle
from edgekit.runtime.bundle import Bundle
from edgekit.runtime.watch import start_watch


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    with open_bundle(watched_bundle(tmp_path / "bundle")) as opened:
        yield opened


WATCH: dict[str, Any] = {"every": 1, "period_s": 1, "window_s": 1, "limits": {}}


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("statistics", {"inputs": []}, "outputs"),
        ("watch", {}, "no 'every'"),
        ("watch", WATCH | {"every": 0}, "every = 0, which is no number of queries"),
        ("watch", WATCH | {"period_s": -1}, "period_s = -1, which is too small"),
        ("watch", WATCH | {"window_s": 0}, "window_s = 0, which is too small"),
        ("watch", WATCH | {"limits": {"drift": None}}, "limits.drift = None, which is no number"),
        ("watch", WATCH | {"limits": {"drift": True}}, "limits.drift = True, which is no number"),
        ("watch", WATCH | {"limits": {"p99_ms": -3}}, "limits.p99_ms = -3, which is too small"),
        ("watch", WATCH | {"limits": []}, r"limits = \[\], which is no table"),
    ],
)
def test_what_edgekit_did_not_write_is_refused_and_the_folder_is_free_again(bundle, tmp_path, field, value, found):
    wrong = replace(bundle, manifest=replace(bundle.manifest, **{field: value}))
    with pytest.raises(BundleError, match=f"cannot be read(.|\n)*{found}"):
        start_watch(wrong, tmp_path / "w")
    start_watch(bundle, tmp_path / "w").close()


def test_an_unknown_limit_is_named(bundle, tmp_path):
    raw = dict(bundle.manifest.watch) | {"limits": {"drfit": 1.0}}
    with pytest.raises(EdgeKitError, match="did you mean 'drift'"):
        start_watch(replace(bundle, manifest=replace(bundle.manifest, watch=raw)), tmp_path / "w")
