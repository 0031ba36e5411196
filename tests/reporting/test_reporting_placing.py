from edgekit.reporting.placing import int8_share, placement_facts
from edgekit.reporting.tables import candidates_table


def candidate(**proof):
    return {"plan": "onnxruntime int8", "engine": "onnxruntime", "precision": "int8", "proof": proof}


def test_the_share_shown_is_that_of_the_arithmetic_where_it_is_known():
    assert int8_share({"int8_share": 0.5, "int8_share_macs": 0.9}) == 0.9
    assert int8_share({"int8_share": 0.5, "int8_share_macs": 0.0}) == 0.0
    assert int8_share({"int8_share": 0.5, "int8_share_macs": None}) == 0.5
    assert int8_share({"int8_share": 0.5}) == 0.5  # a report of before
    assert int8_share(None) is None


def test_what_ran_in_int8_and_what_fell_out_is_told():
    names = [f"conv{i}" for i in range(8)]
    known = candidate(int8_share=0.5, int8_share_macs=0.9, int8_share_time=0.25, ran_in_float=names)
    found = list(placement_facts({"candidates": [known]}))
    assert found == [
        ("onnxruntime int8 ran in int8", "90% of the multiply-accumulates, 50% of the nodes, 25% of the time"),
        (
            "onnxruntime int8 ran in float, though quantised",
            "conv0, conv1, conv2, conv3, conv4, conv5 and 2 more",
        ),
    ]


def test_what_is_not_int8_or_failed_has_nothing_to_tell():
    failed = {"plan": "openvino int8", "engine": "openvino", "precision": "int8", "proof": None}
    fp32 = candidate(int8_share=0.0) | {"precision": "fp32"}
    assert list(placement_facts({"candidates": [failed, fp32, candidate(int8_share=None)]})) == []
    (fact,) = placement_facts({"candidates": [candidate(int8_share=1.0)]})
    assert fact[1] == "100% of the nodes"


def test_the_table_of_candidates_shows_it():
    shown = candidate(int8_share=0.5, int8_share_macs=0.875, reference_db=30.0, drop=None)
    shown |= {"shipped": True, "measured": None, "size_mb": 1.0, "status": "pass"}
    header, (row,) = candidates_table({"candidates": [shown]})
    assert row[header.index("int8")] == "88%"


def test_what_a_device_ran_is_told_with_its_name_and_else_that_it_was_read_here():
    target = {"device": {"name": "bench"}, "candidates": [candidate(int8_share=1.0, placed_there=True)]}
    assert list(placement_facts(target)) == [("onnxruntime int8 ran in int8", "100% of the nodes, on bench")]
    (_, note) = placement_facts(target | {"candidates": [candidate(int8_share=1.0)]})
    assert note == (
        "int8 of this host",
        "onnxruntime int8: bench did not tell what it ran, which may be something else",
    )
