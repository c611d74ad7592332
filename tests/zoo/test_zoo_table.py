"""What is said of rows."""

from tests.zoo.table import cells, section, summary, write

ROW = {"suite": "nets", "model": "net", "mode": "graph", "groups": 2, "channels": 8, "frozen": 0.5,
       "reasons": [["model output", 4]], "params": [100, 30], "macs": [1000, 300], "error": 1e-12, "free": [1, 2],
       "runs": [["eval", 2], ["train", 3]], "untrained": "", "seconds": {"capture": 1, "verify": 2}, "memory": 9}


def test_only_what_was_compared_and_ran_in_training_counts_as_trained():
    rows = [ROW, {**ROW, "untrained": "no graph"}, {**ROW, "runs": [["eval", 2], ["eval", 3]]}]
    assert [cells(row)[12] for row in rows] == ["yes", "no", "no"]
    assert "3 verified, 1 of them in both modes" in summary(rows, rows)


def test_the_module_form_counts_as_alike_within_a_twentieth():
    rows = [{**ROW, "formed": 30}, {**ROW, "formed": 35}, {**ROW, "formed": 36}, {**ROW, "unformed": "a literal"}, ROW]
    assert [cells(row)[8] for row in rows] == ["30.0%", "35.0%", "36.0%", "refused", ""]
    assert "2 of 3 within 0.05 of that in module form" in summary(rows, rows)


def test_every_line_of_a_section_has_all_columns():
    lines = section("nets", [ROW, {"suite": "nets", "model": "none", "failed": "no|thing"}]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1


def test_where_packages_lie_is_not_published(tmp_path):
    none = {"suite": "nets", "model": "a_none", "failed": "why", "traceback": ["File /home"]}
    write([{**ROW, "model": "b_some"}, none], tmp_path / "zoo.md")
    texts = [path.read_text() for path in tmp_path.iterdir()]
    assert len(texts) == 2 and not any("/home" in text for text in texts)
    assert all(text.index("a_none") < text.index("b_some") for text in texts)
