"""A picture of a record's figures, for documents."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from stenosis_trt.bench.record.picture import draw_picture, figures_chart
from stenosis_trt.bench.record.record import BenchRecord, Figure, Section
from stenosis_trt.engine.errors import InputError

FIGURES = (
    Figure("peers.a", "the script", 5.9, "", "higher", low=5.1, high=6.4),
    Figure("peers.b", "defaults", 2.5, "", "higher"),
    Figure("load.c", "a study", 80.0, "ms", "lower"),
)
RECORD = BenchRecord("", "", {}, {}, {}, {}, {}, (Section("peers", "Peers", FIGURES),))


def test_a_picture_names_each_figure_and_its_value_and_is_well_formed() -> None:
    chart = figures_chart(
        RECORD, [("peers.a", "a script < 100 lines"), ("peers.b", "defaults")], "Times & pairs"
    )
    root = ElementTree.fromstring(draw_picture(chart))
    texts = " ".join("".join(item.itertext()) for item in root.iter() if item.tag.endswith("text"))
    for expected in ("Times & pairs", "a script < 100 lines", "defaults", "5.9", "2.5"):
        assert expected in texts
    assert len([item for item in root.iter() if item.get("class") == "bar"]) == 2


def test_a_picture_loads_nothing_from_elsewhere() -> None:
    text = draw_picture(figures_chart(RECORD, [("peers.a", "a")], "T"))
    assert text.count("http") == 1
    assert 'xmlns="http://www.w3.org/2000/svg"' in text


@pytest.mark.parametrize("names", [[("peers.x", "x")], [("peers.a", "a"), ("load.c", "c")]])
def test_a_figure_that_is_missing_or_of_another_unit_is_refused(names: list[tuple[str, str]]) -> None:
    with pytest.raises(InputError):
        figures_chart(RECORD, names, "T")
