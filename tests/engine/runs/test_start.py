"""The start of a run: headers are read, and modules imported, while the models are opened."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dicom_factory import series
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.dicom.errors import ReaderError
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.runs import opening as opening_module
from stenosis_trt.engine.runs import start
from stenosis_trt.engine.runs.background_scan import BackgroundScan
from stenosis_trt.engine.runs.opening import OpenedModels, Opening, open_models
from stenosis_trt.engine.runs.options import GradeOptions


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


def _loaded(script: str) -> set[str]:
    program = f"import sys\n{script}\nprint(' '.join(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_a_run_on_a_cpu_imports_no_pydicom_and_nothing_of_plans(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 5)
    found = _loaded(
        "from pathlib import Path\n"
        "from stenosis_trt.engine import grade\n"
        f"grade({str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}, pack={str(pack)!r}, device='cpu')"
    )
    assert "onnxruntime" in found
    assert not {name for name in found if name.split(".")[0] in ("pydicom", "gdcm", "rich", "jinja2")}
    assert not {
        name for name in found if name.startswith(("stenosis_trt.engine.plans", "stenosis_trt.bench"))
    }


def test_models_are_begun_with_before_the_batch_is_imported() -> None:
    found = _loaded("import stenosis_trt.engine.runs.start")
    assert "stenosis_trt.engine.runs.batch" not in found
    assert "stenosis_trt.engine.dicom.reader" not in found


def test_models_are_opened_in_a_thread_of_their_own(monkeypatch: pytest.MonkeyPatch, pack: Path) -> None:
    threads: list[int] = []

    def note(options: GradeOptions) -> OpenedModels:
        threads.append(threading.get_ident())
        return open_models(options)

    monkeypatch.setattr(opening_module, "open_models", note)
    with Opening(GradeOptions(pack=pack, device="cpu")) as opening:
        opened = opening.result()
    opened.backend.close()
    assert threads != [threading.get_ident()]
    assert opened.decision.backend == "onnxruntime"


def test_models_that_nothing_asked_for_are_closed(monkeypatch: pytest.MonkeyPatch, pack: Path) -> None:
    closed: list[bool] = []

    def note(options: GradeOptions) -> OpenedModels:
        opened = open_models(options)
        close = opened.backend.close
        monkeypatch.setattr(opened.backend, "close", lambda: (closed.append(True), close()))
        return opened

    monkeypatch.setattr(opening_module, "open_models", note)
    Opening(GradeOptions(pack=pack, device="cpu")).close()
    assert closed == [True]


def test_a_pack_that_cannot_be_used_leaves_no_folder_and_no_process(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 5)
    with pytest.raises(PackError):
        start.start_run(
            [tmp_path / "in"], tmp_path / "out", GradeOptions(pack=tmp_path / "none", device="cpu")
        )
    assert not (tmp_path / "out").exists()


def test_a_scan_in_the_background_gives_what_a_scan_gives(tmp_path: Path) -> None:
    series(tmp_path / "in", 5)
    with DicomReader() as reader:
        expected = reader.scan([tmp_path / "in"])
    told: list[int] = []
    with BackgroundScan(DicomReader(), [tmp_path / "in"]) as scan:
        found = scan.result(told.append)
        assert scan.reader.process_ids
    assert found == expected
    assert set(told) <= {5}


def test_closing_ends_a_scan_in_the_background(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    going, goes_on = threading.Event(), threading.Event()

    def find(paths: object, list_dicomdir: Callable[..., object]) -> Iterator[Path]:
        for number in range(1000):
            going.set()
            if number:
                goes_on.wait(10)
            yield tmp_path / str(number)

    monkeypatch.setattr("stenosis_trt.engine.dicom.reader.find_files", find)
    scan = BackgroundScan(DicomReader(), [tmp_path])
    assert going.wait(10)
    threading.Timer(0.2, goes_on.set).start()
    scan.close()
    with pytest.raises(ReaderError):
        scan.result(lambda done: None)
    assert not scan.reader.process_ids
