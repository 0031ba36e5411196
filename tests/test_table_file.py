"""The file in which a latency table travels: what is written is read, and nothing else is."""

import dataclasses
import json

import pytest
from fake_line import elsewhere, fake_target
from tables import group, row, table

from edgekit.errors import SpecError
from edgekit.table_file import ESTIMATE, read_table, write_table

ROWS = (row("removed", 9.0, 8.0, 10.0), row("4 of 8 channels", 2.0, -1.0, 5.0))
GROUPS = [group("layer1.0", "removed"), group("layer1.1", "removed")]


@pytest.fixture
def path(tmp_path):
    write_table(table(*ROWS, notes=("one", "two"), batch=2), tmp_path / "device.json")
    return tmp_path / "device.json"


def changed(path, **fields):
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (raw | fields).items() if value is not ...}))


def row_with(**fields):
    return [dataclasses.asdict(ROWS[0]) | fields]


def test_what_is_written_is_read_and_says_that_it_was_measured_elsewhere(path):
    wanted = table(*ROWS, notes=("one", "two"), batch=2, source="measured elsewhere: device.json")
    assert read_table(path, GROUPS, "null", "fp32") == wanted
    assert read_table(path, GROUPS, "null", "fp32", batch=2, target=fake_target()) == wanted


def test_what_was_read_can_be_written_and_read_again(path):
    found = read_table(path, GROUPS, "null", "fp32")
    write_table(found, path.with_name("copy.json"))
    assert read_table(path.with_name("copy.json"), GROUPS, "null", "fp32").source == "measured elsewhere: copy.json"


def test_an_estimate_does_not_become_a_measurement(path):
    write_table(table(*ROWS, source=ESTIMATE, host=None), path)
    found = read_table(path, GROUPS, "null", "fp32", target=elsewhere())
    assert (found.source, found.estimated) == (ESTIMATE, True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engine": "openvino"}, "of another engine\n  found:   null\n  allowed: openvino"),
        ({"precision": "int8"}, "of another precision\n  found:   fp32\n  allowed: int8"),
        ({"batch": 1}, "of another batch\n  found:   2\n  allowed: 1"),
        (
            {"target": elsewhere()},
            "of another machine\n  found:   its host is .*, the target is a CPU of another world",
        ),
        (
            {"groups": [*GROUPS, group("layer2.0", "removed", alike="wide")]},
            r"nothing is known of group 'layer2.0'\n[^$]*--table-only` on the device and copy OUT/latency_table.json",
        ),
    ],
)
def test_a_table_of_something_else_is_refused(path, asked, message):
    known = {"groups": GROUPS, "engine": "null", "precision": "fp32"} | asked
    with pytest.raises(SpecError, match=message):
        read_table(path, known.pop("groups"), known.pop("engine"), known.pop("precision"), **known)


def test_a_class_of_which_no_move_could_be_made_is_known(path):
    write_table(table(classes=("block",)), path)
    assert read_table(path, GROUPS, "null", "fp32").rows == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema_version": 2}, "not a latency table that this build of edgekit reads\n  found:   schema_version 2"),
        ({"schema_version": ...}, "found:   no schema_version"),
        ({"schema_version": True}, "found:   schema_version true"),
        ({"whole_uss": 1.0}, "unknown key 'whole_uss'"),
        ({"whole_us": ...}, "key 'whole_us' is missing"),
        ({"whole_us": "12"}, "wrong value for key 'whole_us'"),
        ({"whole_us": 0.0}, "the times: cannot be"),
        ({"seconds": -1.0}, "the times: cannot be"),
        ({"batch": 0}, "batch: cannot be"),
        ({"host": None}, "host: cannot be"),
        ({"host": {"arch": "x86_64"}}, "key 'host.isa' is missing"),
        ({"rows": row_with(saving=1.0)}, r"unknown key 'rows\[0\].saving'"),
        ({"rows": row_with(kind="layer")}, r"wrong value for key 'rows\[0\].kind'"),
        ({"rows": row_with(members=0)}, "the row of 'layer1.0', 'removed': cannot be\n  found:   members 0"),
        ({"rows": row_with(low_us=9.5)}, r"found:   9 \[9.5, 10\] µs"),
        ({"rows": row_with(high_us=101.0)}, "found:   saves up to 101 µs\n  allowed: the whole network: 100 µs"),
        ({"rows": row_with(alike="other")}, "found:   alike 'other'"),
        ({"rows": row_with() * 2}, "a move has two rows: cannot be\n  found:   block removed"),
    ],
)
def test_a_damaged_table_is_refused_by_name(path, fields, message):
    changed(path, **fields)
    with pytest.raises(SpecError, match=message):
        read_table(path, GROUPS, "null", "fp32")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        (b"\x80\x04K\x01.", "not JSON"),  # a pickle
        (b"[]", "found:   no schema_version"),
        (b"{", "not JSON"),
    ],
)
def test_what_is_no_table_is_refused(path, text, message):
    path.unlink()
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(SpecError, match=message):
        read_table(path, GROUPS, "null", "fp32")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(path, number):
    text = path.read_text()
    assert '"saved_us": 9.0' in text
    path.write_text(text.replace('"saved_us": 9.0', f'"saved_us": {number}'))
    with pytest.raises(SpecError, match=r"no number of JSON|wrong value for key 'rows"):
        read_table(path, GROUPS, "null", "fp32")
