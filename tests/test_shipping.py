import dataclasses

import pytest
from fake_line import elsewhere, fake_target, make_task, quick_profile
from test_best import collapsed_one, judged

from edgekit.recipe import Quantization
from edgekit.shipping import Job, exit_code_of, why_it_ships


def job(target=None, precision="auto"):
    quantization = Quantization(precision=precision)
    return Job(target=target or fake_target(), profile=quick_profile(), engines=("null",), quantization=quantization)


PASS, SLOWER = judged("pass", 1.0), judged("pass", 2.0, "int8")
REFUSED = judged("", failure="refused")
WORSE = judged("fail", 0.5, "int8", accuracy_failed=True)


@pytest.mark.parametrize(
    ("candidates", "shipped", "code"),
    [
        ([PASS, SLOWER], PASS, 0),
        ([PASS, REFUSED], PASS, 0),
        ([judged("fail", 9.0), WORSE], judged("fail", 9.0), 3),
        ([judged("inconclusive", 9.0)], judged("inconclusive", 9.0), 4),
        ([judged("not measured")], judged("not measured"), 4),
        ([WORSE], None, 3),
        ([WORSE, REFUSED], None, 3),
        ([REFUSED, REFUSED], None, 1),
        ([], None, 1),
    ],
)
def test_the_exit_code_of_a_target(candidates, shipped, code):
    assert exit_code_of(candidates, shipped) == code


@pytest.mark.parametrize(
    ("candidates", "shipped", "why"),
    [
        (
            [PASS, SLOWER],
            PASS,
            "null fp32: lowest p50 bound (1.000 ms) in fp32 of those that meet every limit; "
            "null int8 is not shown to be faster (2.00x of its p50)",
        ),
        (
            [judged("fail", 9.0), judged("fail", 10.0)],
            0,
            "null fp32: lowest p50 bound (9.000 ms) of the best there is (fail)",
        ),
        ([PASS], PASS, "null fp32: the only candidate"),
        ([PASS, REFUSED], PASS, "null fp32: the only candidate left"),
        ([PASS, WORSE], PASS, "null fp32: the only candidate left"),
        ([WORSE, REFUSED], None, "nothing ships: the accuracy limit is missed"),
        ([REFUSED, REFUSED], None, "nothing ships: every candidate failed"),
        (
            [PASS, collapsed_one()],
            PASS,
            "null fp32: the only candidate left; null int8 has collapsed (13.0 dB)",
        ),
        ([REFUSED, collapsed_one()], None, "nothing ships: every candidate failed or collapsed"),
    ],
)
def test_why_it_ships(candidates, shipped, why):
    chosen = candidates[shipped] if isinstance(shipped, int) else shipped
    assert why_it_ships(job(), candidates, chosen, make_task()) == why


def test_without_a_bound_it_is_the_lowest_median():
    few = dataclasses.replace(
        PASS, measured=dataclasses.replace(PASS.measured, application_ms=PASS.measured.application_ms[:5])
    )
    assert "lowest median of those that meet every limit" in why_it_ships(job(), [few, few], few, make_task())


def test_auto_says_when_int8_was_not_tried():
    task = make_task(calibration=None)
    note = "; int8 was not tried: there are no calibration samples"
    assert why_it_ships(job(), [PASS], PASS, task) == f"null fp32: the only candidate{note}"
    assert why_it_ships(job(), [PASS, PASS], PASS, task).endswith(note)
    assert note not in why_it_ships(job(precision="fp32"), [PASS], PASS, task)
    assert note not in why_it_ships(job(fake_target(precisions=("fp32",))), [PASS], PASS, task)


def test_elsewhere_it_says_what_was_asked_and_why_nothing_was_measured():
    made = judged("not measured")
    task = make_task(elsewhere())
    assert why_it_ships(job(elsewhere()), [made, made], made, task).startswith(
        "null fp32: auto ships fp32 where nothing can be measured (this host is"
    )
    assert why_it_ships(job(elsewhere(), "fp32"), [made], made, task).startswith("null fp32: as asked (this host is")
    only = elsewhere(precisions=("fp32",))
    assert "as asked" in why_it_ships(job(only), [made], made, make_task(only))
