from edgekit.reporting.markdown import to_markdown


def tables(text):
    """Every table as rows of cells, without the rule below the header."""
    found = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[row for row in table if set("".join(row)) != set("- ") - {" "}] for table in found if table]


def test_it_is_made_from_the_report_alone(report, candidate):
    text = to_markdown(report(candidate(), candidate("openvino", "fp32", drop=(-0.1, 0.1))))
    assert text.startswith("# digits\n\n## local, profile quick: **pass**\n\nonnxruntime int8: lowest p50 bound")
    assert "Bundle `0123456789abcdef`" in text
    assert "Reproduce: `edgekit deploy examples/digits` with edgekit 0.1.0, seed 0." in text
    assert "- engines: onnxruntime 1.31.1, openvino 2026.4.1" in text
    assert text.endswith("\n")


def test_its_tables_are_whole(report, candidate):
    found = tables(to_markdown(report(candidate(), candidate("openvino"))))
    assert [len(table) - 1 for table in found] == [2, 5, 2, 3]
    for table in found:
        assert {len(row) for row in table} == {len(table[0])}
    assert found[0][1][-3] == "0.20 [-0.52, 0.91]"


def test_failures_are_told_word_for_word(report, candidate):
    text = to_markdown(report(candidate(), candidate("openvino", failure="openvino cannot\n  found:   | Foo |")))
    assert "**openvino int8 failed**:\n\n```\nopenvino cannot\n  found:   | Foo |\n```" in text


def test_where_nothing_ships(report, candidate):
    text = to_markdown(report(candidate(drop=(3.0, 5.0)), shipped=None, command=None))
    assert "**fail**\n\nnothing ships: the accuracy limit is missed\n" in text
    assert "**onnxruntime int8**:\n\n```\nnot met: max_drop_points\n```" in text
    assert "Bundle" not in text
    assert "Reproduce" not in text


def test_a_bar_in_a_cell_breaks_no_table(report, candidate):
    whole = report(candidate())
    whole["models"]["teacher"]["name"] = "a|b"
    assert "| teacher | a\\|b |" in to_markdown(whole)
