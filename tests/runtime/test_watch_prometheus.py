"""The page for Prometheus: its text, its file, and HTTP on request."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from watched import feeds_of, watched_bundle

from edgekit.errors import EdgeKitError
from edgekit.runtime import open_bundle
from edgekit.runtime.watch import start_watch


@pytest.fixture
def bundle(tmp_path):
    with open_bundle(watched_bundle(tmp_path / "bundle")) as opened:
        yield opened


ROW = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')


def page_rows(text):
    """Rows of a page by the rules of the text format: every name announced once, no row twice."""
    assert text.endswith("\n")
    kinds, rows = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            found = ROW.fullmatch(line)
            assert found, line
            name = re.sub(r"_(bucket|sum|count)$", "", found[1]) if found[1] not in kinds else found[1]
            assert name in kinds, line
            assert kinds[name] != "counter" or found[1].endswith("_total")
            assert (found[1], found[2]) not in rows, line
            rows[found[1], found[2]] = float(found[3])
    return rows


def test_the_page_is_prometheus_text(bundle, tmp_path):
    odd = replace(bundle, manifest=replace(bundle.manifest, name='a "b" \\ c\nd'))
    with start_watch(odd, tmp_path / "w", prometheus=tmp_path / "zeros.prom") as watch:
        for feeds in feeds_of(40):
            watch.run(feeds)
        watch.write()
        rows = page_rows((tmp_path / "zeros.prom").read_text())
    assert rows["edgekit_query_seconds_count", None] == 40
    assert rows["edgekit_query_seconds_bucket", 'le="+Inf"'] == 40
    buckets = [value for (name, _), value in rows.items() if name == "edgekit_query_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert rows["edgekit_limit", 'limit="drift"'] == bundle.manifest.watch["limits"]["drift"]
    assert not (tmp_path / "w/watch.prom").exists()
    assert sorted(path.name for path in tmp_path.glob("*.prom")) == ["zeros.prom"], "and no partial one"


def test_a_page_that_cannot_be_written_is_told_at_the_start(bundle, tmp_path):
    with pytest.raises(EdgeKitError, match="cannot be written"):
        start_watch(bundle, tmp_path / "w", prometheus=tmp_path / "no/such/zeros.prom")
    assert not (tmp_path / "no").exists()
    assert not (tmp_path / "w").exists()


def test_the_page_is_served_on_request_only(bundle, tmp_path):
    with start_watch(bundle, tmp_path / "w", http="127.0.0.1:0") as watch:
        for feeds in feeds_of(10):
            watch.run(feeds)
        with urllib.request.urlopen(f"http://{watch.address}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert page_rows(answer.read().decode())["edgekit_query_seconds_count", None] == 10
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{watch.address}/")
        address = watch.address
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/metrics")
    with start_watch(bundle, tmp_path / "w") as watch:
        assert watch.address is None


@pytest.mark.parametrize("address", ["9109", "127.0.0.1:x", "127.0.0.1:70000", ":80", "no.such.host.invalid:80"])
def test_an_address_that_is_none_is_refused_and_the_folder_is_free_again(bundle, tmp_path, address):
    with pytest.raises(EdgeKitError, match=re.escape(address)):
        start_watch(bundle, tmp_path / "w", http=address)
    start_watch(bundle, tmp_path / "w").close()
