"""Times of header scans and of starts, and the growth of long runs, are measured as their commands say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shared_phantoms import phantoms
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.speed import many_studies, scan_time, start_time
from stenosis_trt.bench.speed.many_studies import Sample, compare
from stenosis_trt.bench.speed.processes import child_processes, processor_seconds, resident_bytes
from stenosis_trt.engine.dicom.reader import DicomReader


def test_children_of_this_process_are_seen_with_their_time_and_memory(tmp_path: Path) -> None:
    before = set(child_processes())
    with DicomReader() as reader:
        reader.scan([shutil.copy(__file__, tmp_path)])
        (pid,) = reader.process_ids
        assert set(child_processes()) - before == {pid}
        assert processor_seconds(pid) > 0
        assert resident_bytes(pid) > 1 << 20
    assert resident_bytes(pid) == 0
    with pytest.raises(OSError, match="Invalid argument"):
        processor_seconds(pid)


def _samples(growth: float) -> list[Sample]:
    return [
        Sample(number, 2.0 * number, 1.0 * number, int((100 + growth * number) * (1 << 20)), 50 << 20)
        for number in range(1, 101)
    ]


def test_growth_is_the_ratio_of_the_last_studies_to_the_first() -> None:
    constant, growing = compare(_samples(0), 100), compare(_samples(1), 100)
    assert constant["main_mib"] == {"first": 100.0, "last": 100.0, "ratio": 1.0}
    assert constant["seconds_a_study"]["first"] == constant["seconds_a_study"]["last"] == 2.0
    assert growing["main_mib"]["ratio"] > 1.5
    assert growing["reading_mib"]["ratio"] == 1.0
    with pytest.raises(ValueError, match="too few"):
        compare(_samples(0)[:3], 100)


@pytest.mark.slow
def test_scans_are_timed_beside_pydicom_and_with_copies(tmp_path: Path) -> None:
    folders = scan_time.write_folders(tmp_path, 80)
    figures = scan_time.measure(folders, workers=2, rounds=1)
    assert figures["files"] >= 80
    assert figures["ms_per_file"]["ours"]["min"] > 0
    assert figures["times_faster_than"]["pydicom"] > 0
    assert set(figures["processor_ms_per_file"]) == {"this_process", "reading_processes"}
    assert min(figures["processor_ms_per_file"].values()) > 0
    assert set(figures["ms_per_file_with_copies"]) == {"equal_copies", "changed_copies"}


@pytest.mark.slow
def test_starts_are_timed_to_the_results_of_a_study(tmp_path: Path) -> None:
    seconds = start_time.measure(tmp_path, runs=1)["seconds"]
    assert 0 < seconds["python"]["min"] < seconds["help"]["min"] < seconds["grade"]["min"]


@pytest.mark.slow
def test_a_run_over_more_studies_takes_no_more_memory_and_no_longer_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = write_tiny_pack(tmp_path / "tiny").path
    source = shutil.copytree(phantoms(2, 33), tmp_path / "phantoms")
    (source / "truth.csv").unlink(missing_ok=True)
    monkeypatch.setattr(many_studies, "write_studies", lambda *_: None)
    figures = many_studies.measure(tmp_path, 80, str(pack))
    assert figures["studies"] == 80
    assert figures["main_mib"]["ratio"] < 1.05
    assert figures["reading_mib"]["ratio"] < 1.05
    # Wall time would be that of the machine's other load.
    assert figures["processor_seconds_a_study"]["ratio"] < 1.5
