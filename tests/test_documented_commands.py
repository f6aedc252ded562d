"""Every command of the documents runs: here, as it stands, or in the test or script that is named for it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documented import DOCUMENTS, ROOT, blocks, commands_in, quoted, read, rows
from matplotlib.image import imread

from stenosis_trt.engine.packs.pack import reference_pack

COMMANDS = {
    command: str(path.relative_to(ROOT))
    for path in reversed(DOCUMENTS)
    for command in commands_in(path.read_text(encoding="utf-8"))
}
"""Every command, and the first document that has it."""

SMALLER = (
    ("phantom P --studies 40", "phantom P --studies 2"),
    ("study_time --studies 10", "study_time --studies 1"),
    ("subpixel --studies 16", "subpixel --studies 1"),
    ("reading_time", "reading_time --runs 1 --workers 1"),
)
"""What is run with fewer studies than the documents say."""

RUN_HERE = (
    "stenosis-trt demo --out TRY",
    "stenosis-trt report TRY/results --format sr,sc,png,html,text",
    "stenosis-trt doctor",
    "stenosis-trt schema",
    "stenosis-trt schema results.jsonl",
    "stenosis-trt phantom P --studies 40 --seed 4242 --workers 2",
    "stenosis-trt grade P --out R",
    "python -m stenosis_trt.bench.accuracy.compare R/results.csv P/truth.csv",
    "stenosis-trt inspect STUDIES",
    "stenosis-trt inspect STUDIES --json",
    "stenosis-trt inspect STUDIES --no-paths",
    "stenosis-trt inspect STUDIES --files",
    "stenosis-trt inspect STUDIES --json",
    "stenosis-trt schema",
    "stenosis-trt schema results.jsonl",
    "stenosis-trt inspect STUDIES --read-limit max_file_bytes=4GiB --read-limit timeout_seconds=300",
    "stenosis-trt grade STUDIES --out RESULTS",
    "stenosis-trt grade STUDIES --out RESULTS --resume",
    "stenosis-trt report RESULTS --format html",
    "stenosis-trt grade STUDIES --out RESULTS-FAST --precision auto",
    "stenosis-trt grade STUDIES --out RESULTS-REPORTS --format csv,json,sr,sc,html",
    "stenosis-trt report RESULTS-REPORTS --format html,text",
    "stenosis-trt grade STUDIES --out RESULTS-WITHOUT-PATHS --no-paths",
    "stenosis-trt grade STUDIES --out RESULTS-EXCEL --csv-for-excel comma",
    "stenosis-trt verify PACK",
    "stenosis-trt doctor --pack PACK",
    "stenosis-trt grade STUDIES --out RESULTS-PACK --pack PACK",
    "openssl genpkey -algorithm ed25519 -out KEY.pem",
    "openssl pkey -in KEY.pem -pubout -out PUB.pem",
    "stenosis-trt sign PACK --signing-key KEY.pem",
    "stenosis-trt verify PACK --trusted-key PUB.pem",
    "stenosis-trt grade STUDIES --out RESULTS-SIGNED --pack PACK --trusted-key PUB.pem",
    "openssl pkey -pubin -in PUB.pem -outform DER | tail -c 32 | sha256sum",
    "stenosis-trt bench roofline",
    "python -m stenosis_trt.bench.speed.study_time --studies 10",
    "python -m stenosis_trt.bench.speed.reading_time",
    "python -m stenosis_trt.bench.accuracy.subpixel --studies 16",
)
"""In this order, in one folder that has what the documents call STUDIES and PACK. All of them succeed."""

_GATE = "tests/export/precision/test_gate.py"
_SEARCH = "tests/export/precision/test_search.py"
_EXPORT = "tests/export/packs/test_export_command.py"
_BUILD = "tests/engine/cli/test_build.py"
_STAND_INS = "tests/engine/backends/test_on_stand_ins.py"
_PRECISIONS = "tests/engine/backends/test_precisions_on_stand_ins.py"
_GPU_SUITE = "tests/bench/speed/test_gpu_suite.py"
_TRAIN = "tests/export/training/test_train.py"
_EVALUATE = "tests/bench/evaluation/test_phantoms.py"
ELSEWHERE = (
    # What is matched, and the script or test that runs it, with smaller networks or on stand-ins.
    (r"python3 -m venv \.venv|pip install \.|stenosis-trt demo", ".ci/run"),
    (r"pip install -c constraints\.txt '\.\[(test|docs)\]'|mkdocs build --strict", ".ci/run"),
    (r"pytest -n auto --dist loadfile", ".ci/run"),
    (r"pip install '\.\[rtx-build\]'", ".ci/run"),
    (r"pytest( -m (slow|timing|viewers))? tests/\S+( tests/\S+)*", "."),
    (
        r"stenosis-trt export .*--precision .*",
        f"{_EXPORT}::test_export_goes_on_to_other_precisions_as_quantise_does",
    ),
    (r"stenosis-trt export .*", f"{_EXPORT}::test_three_checkpoints_become_a_pack_that_verifies"),
    (r"python -m stenosis_trt\.export\.packs\.recover reference CK", "tests/export/packs/test_recover.py"),
    (r"stenosis-trt quantise .*--search.*", f"{_SEARCH}::test_a_pack_is_written_with_what_the_search_found"),
    (r"stenosis-trt quantise .*", f"{_GATE}::test_what_passes_is_published_and_what_fails_is_not"),
    (r"stenosis-trt verify NEW.*", f"{_GATE}::test_verify_shows_the_variants_and_repeats_the_gate"),
    (r"stenosis-trt grade .*--precision fp16", f"{_GATE}::test_the_precision_that_graded_is_recorded"),
    (r"stenosis-trt verify PACK --(parity|inspect)", "tests/export/precision/test_parity.py"),
    (
        r"stenosis-trt verify PACK --device gpu",
        f"{_PRECISIONS}::test_int8_of_a_pack_is_built_and_run_without_what_made_it",
    ),
    (r"stenosis-trt (build|doctor --pack) PACK-FP16( --flavour tensorrt-rtx --batch 1,6)?", _BUILD),
    (r"stenosis-trt build PACK( --flavour tensorrt-rtx)?", _BUILD),
    (r"stenosis-trt build PACK --precision fp16 .*", _BUILD),
    (r"stenosis-trt grade STUDIES --out RESULTS-GPU --pack PACK --device gpu", _STAND_INS),
    (r"(venv/bin/)?stenosis-trt bench gpu-suite --out SUITE( --quick)?( --prepare-only)?", _GPU_SUITE),
    (r"stenosis-trt bench kernels .*", "tests/kernels/test_bench_work.py"),
    (r"stenosis-trt phantom P2 --anatomy VOLUMES", "tests/bench/semisynthetic/test_semisynthetic.py"),
    (r"stenosis-trt phantom P3 .*--condition .*", "tests/engine/cli/test_phantom_conditions.py"),
    (r"stenosis-trt (phantom TRY|grade TRY) .*", "tests/test_docs_jetson.py"),
    (r"stenosis-trt phantom P --studies 100 --seed 4242 --workers 2", _EVALUATE),
    (r"python -m stenosis_trt\.bench\.evaluation\.simulated P/truth\.csv S --seed 1", _EVALUATE),
    (r"stenosis-trt evaluate R P/truth\.csv S/reader_1\.csv S/reader_2\.csv .*", _EVALUATE),
    (r"python -m stenosis_trt\.export\.training\.train .*", _TRAIN),
    (r"python -m stenosis_trt\.bench\.speed\.report_time .*", "tests/bench/speed/test_report_time.py"),
    (r"pip install '\.\[bench,report,cpu-fast\]'", ".ci/run"),
    (r"stenosis-trt build( PACK)? --device cpu.*", "tests/engine/cli/test_build_cpu.py"),
    (r"stenosis-trt bench all .*", "tests/bench/test_benchmark.py"),
    (r"stenosis-trt bench compare A\.json B\.json", "tests/engine/cli/test_bench.py"),
    (r"python -m stenosis_trt\.bench\.peers\.user_script FOLDER", "tests/bench/peers/test_user_script.py"),
    (r"stenosis-trt bench choose .*", "tests/bench/test_choose.py"),
    (
        r"python -m stenosis_trt\.bench\.speed\.(scan_time|start_time|many_studies) .*",
        "tests/bench/speed/test_start_and_scan.py",
    ),
    (
        r"python -m stenosis_trt\.bench\.accuracy\.healthy_(bias|norms) \.\./shared/.*",
        "tests/bench/accuracy/test_healthy_bias.py",
    ),
    (
        r"python -m stenosis_trt\.bench\.accuracy\.(cord_angle|slice_choice) .*",
        "tests/bench/accuracy/test_cord_angle.py",
    ),
    (r"python -m stenosis_trt\.bench\.accuracy\.cord_edges .*", "tests/bench/accuracy/test_cord_edges.py"),
    (
        r"python -m stenosis_trt\.bench\.accuracy\.signal_voids .*",
        "tests/bench/accuracy/test_signal_voids.py",
    ),
    (
        r"python -m stenosis_trt\.bench\.accuracy\.(level_numbers|slice_angle) .*",
        "tests/bench/accuracy/test_numbers_and_angles.py",
    ),
    (r"python -m stenosis_trt\.bench\.robustness .*", "tests/bench/robustness/test_robustness.py"),
)

NOT_RUN = (
    # What no machine of the tests has.
    (r"pytest -m gpu", "an NVIDIA GPU"),
    (r"stenosis-trt (build|doctor --pack) PACK-FP16 --(flavour tensorrt|device gpu)", "TensorRT and a GPU"),
    (
        r"python -m stenosis_trt\.bench\.accuracy\.(real_anatomy VOLUMES|out_of_distribution DATA)",
        "real volumes",
    ),
    (r"python -m stenosis_trt\.export\.training\.sizes .*", "real volumes, and hours"),
    (
        r"pip (wheel|download) .*|python3 -m venv --system-site-packages venv",
        "a package index, and a GPU's machine",
    ),
    (r"venv/bin/pip .*|venv/bin/stenosis-trt doctor|PYTHONPATH=\.ci/types .*", "a GPU's machine"),
    (r"sudo .*|/opt/.*|docker .*", "a Jetson"),
    (r"python3 -m venv gather|gather/bin/pip .*|PYTHON=gather/bin/python .*", "a package index"),
)


def _matches(command: str, pattern: str) -> bool:
    return re.fullmatch(pattern, command) is not None


def test_every_command_is_run_here_or_somewhere_that_is_named() -> None:
    lost = {
        command: document
        for command, document in COMMANDS.items()
        if command not in RUN_HERE
        and not any(_matches(command, pattern) for pattern, _ in (*ELSEWHERE, *NOT_RUN))
    }
    assert lost == {}


def test_whatever_is_listed_stands_in_a_document() -> None:
    assert [command for command in RUN_HERE if command not in COMMANDS] == []
    patterns = [pattern for pattern, _ in (*ELSEWHERE, *NOT_RUN)]
    assert [p for p in patterns if not any(_matches(command, p) for command in COMMANDS)] == []


@pytest.mark.parametrize("place", sorted({place for _, place in ELSEWHERE}))
def test_whatever_runs_a_command_is_there(place: str) -> None:
    path, _, name = place.partition("::")
    assert (ROOT / path).exists()
    assert not name or f"\ndef {name}(" in read(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands ran, one after another; `outputs.json` has exit code and output of each."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "STUDIES").symlink_to("P")
    (folder / "PACK").mkdir()
    for path in reference_pack().iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / "PACK" / path.name)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Documents show FP32, whatever `build --device cpu` found on this machine.
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    outputs = {}
    for command in RUN_HERE:
        line = command
        for told, smaller in SMALLER:
            line = line.replace(told, smaller)
        answer = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        outputs[command] = (answer.returncode, answer.stdout + answer.stderr)
    (folder / "outputs.json").write_text(json.dumps(outputs), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN_HERE)
def test_a_command_runs_as_it_stands(command: str, folder: Path) -> None:
    code, output = json.loads((folder / "outputs.json").read_text(encoding="utf-8"))[command]
    assert code == 0, output


@pytest.mark.slow
def test_the_table_of_the_readme_is_what_the_demonstration_gives(folder: Path) -> None:
    head = next(line for line in read("README.md").splitlines() if "`compression_ratio`" in line)
    columns = quoted(head)
    with (folder / "TRY/results/results.csv").open(newline="", encoding="utf-8") as stream:
        first = [row for row in csv.DictReader(stream) if row["study_number"] == "1"]
    assert rows(read("README.md"), "## What comes out") == [[row[name] for name in columns] for row in first]


@pytest.mark.slow
def test_the_picture_is_what_its_command_draws(folder: Path) -> None:
    """To a hundredth of full brightness on average: fonts differ by the version of Pillow."""
    with (folder / "TRY/results/studies.csv").open(newline="", encoding="utf-8") as stream:
        place = next(row["reports"] for row in csv.DictReader(stream) if row["study_number"] == "1")
    drawn = imread(folder / "TRY/results" / place / "summary.png")
    kept = imread(ROOT / "docs/images/example.png")
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 0.01


@pytest.mark.slow
def test_run_json_has_the_fields_that_are_explained_and_the_signer(folder: Path) -> None:
    content = json.loads((folder / "RESULTS-SIGNED/run.json").read_text(encoding="utf-8"))
    explained = [name for row in rows(read("docs/results.md"), "## run.json") for name in quoted(row[0])]
    assert sorted(explained) == sorted(content)
    outputs = json.loads((folder / "outputs.json").read_text(encoding="utf-8"))
    (line,) = [text for command, (_, text) in outputs.items() if command.endswith("sha256sum")]
    assert content["pack"]["signed_by"] == f"SHA256:{line.split()[0]}"


@pytest.mark.slow
@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_the_python_examples_run(document: str, folder: Path) -> None:
    """One after another, as in a notebook; "study_folder" and "archive" are phantoms."""
    for name, leads_to in (("study_folder", "P/study_0001"), ("archive", "P")):
        if not (folder / name).exists():
            (folder / name).symlink_to(leads_to)
    code = "\n".join(blocks(read(document), "python"))
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "C5/6" in answer.stdout
