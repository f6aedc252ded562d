"""Tables that `evaluate` takes: results, truth and readers, scores, folds."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bytes
from stenosis_trt.bench.evaluation.cross_validation import read_folds
from stenosis_trt.bench.evaluation.raters import read_results, read_truth
from stenosis_trt.bench.evaluation.symptoms import read_scores
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.runs.tables import RESULT_COLUMNS

_CELLS = (
    *(b"", b"0", b"3", b"4", b"-1", b"1,5", b"nan", b"1e999", b"9" * 400, b"C5/6", b"C9/9", b"'=1", b"\x00"),
    *(b'"', b'"a\nb"', b"\xff", b"\xef\xbb\xbf", "é".encode(), b"A" * 70000),
)


def seeds() -> list[bytes]:
    results = [",".join(RESULT_COLUMNS)]
    results += [
        ",".join({"study_uid": "1.2", "level": level, "kang_grade": "1"}.get(c, "") for c in RESULT_COLUMNS)
        for level in LEVELS
    ]
    truth = ["study_uid;patient_id;level;kang_grade;compression_ratio"]
    truth += [f"1.2;P;{level};2;0,5" for level in LEVELS]
    tables = (results, truth, ["patient_id,mJOA,VAS", "P,12,3.5", "Q,,1"], ["study_uid\tfold", "1.2\t1"])
    return ["\n".join(lines).encode() for lines in tables]


def check(data: bytes, folder: Path) -> None:
    path = folder / "table.csv"
    path.write_bytes(data)
    heading = data.split(b"\n", 1)[0]
    if b"mJOA" in heading:
        read_scores(path)
    elif b"fold" in heading:
        read_folds(path)
    elif b"p0" in heading:
        read_results(path)
    else:
        read_truth(path)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """A cell with another content, a line removed, doubled or cut; now and then bytes changed."""
    if rng.random() < 0.2:
        return mutated_bytes(rng, data)
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[place]
        case 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[place])
        case 2:
            lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
        case _:
            mark = next((m for m in (b";", b"\t", b",") if m in lines[place]), b",")
            cells = lines[place].split(mark)
            cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
            lines[place] = mark.join(cells)
    return b"\n".join(lines)


TARGET = Target("reader_tables", (InputError,), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
