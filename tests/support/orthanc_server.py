"""Orthanc with its DICOMweb plugin, in a network of its own: what a PACS does with reports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from loopback_network import LoopbackNetwork, stop
from viewer_tools import command_path, need_commands, skip_or_fail

HTTP_PORT = 8042
DICOM_PORT = 4242
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_REQUEST = Path(__file__).with_name("http_request.py")
_START_SECONDS = 30.0


class OrthancError(Exception):
    """Orthanc or dcmtk refused a request."""


class OrthancServer:
    """An empty Orthanc, from `with` to its end.

    Args:
        network: where it listens.
        folder: for its database and its log; it exists.
    """

    def __init__(self, network: LoopbackNetwork, folder: Path) -> None:
        self._network, self._folder = network, folder

    def __enter__(self) -> OrthancServer:
        need_commands("Orthanc", "storescu")
        if not _PLUGIN.exists():
            skip_or_fail("needs Orthanc's DICOMweb plugin: apt-get install orthanc-dicomweb")
        storage = str(self._folder / "storage")
        configuration = self._folder / "orthanc.json"
        configuration.write_text(
            json.dumps(
                {
                    "Name": "viewers",
                    "StorageDirectory": storage,
                    "IndexDirectory": storage,
                    "Plugins": [str(_PLUGIN)],
                    "HttpPort": HTTP_PORT,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomServerEnabled": True,
                    "DicomAet": "ORTHANC",
                    "DicomPort": DICOM_PORT,
                    "DicomAlwaysAllowStore": True,
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False},
                }
            ),
            encoding="utf-8",
        )
        self.log = self._folder / "orthanc.log"
        self._process = self._network.start([command_path("Orthanc"), str(configuration)], self.log)
        try:
            self.request("GET", "/system", seconds=_START_SECONDS)
        except BaseException:
            stop(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self._process)

    def request(self, method: str, path: str, body: bytes = b"", seconds: float = 10.0) -> bytes:
        """Send one request to Orthanc's REST interface and return the answer.

        Raises:
            OrthancError: the answer is an error, or there is none.
        """
        url = f"http://127.0.0.1:{HTTP_PORT}{path}"
        command = [sys.executable, "-I", str(_REQUEST), method, url, str(seconds)]
        done = self._network.run(command, body, seconds + 30)
        if done.returncode:
            raise OrthancError(done.stderr.decode().strip().splitlines()[-1])
        return done.stdout

    def find(self, level: str, **query: str) -> list[Mapping[str, object]]:
        """Return what matches, as /tools/find answers: find("Series", Modality="SR")."""
        body = json.dumps({"Level": level, "Query": query, "Expand": True}).encode()
        found: list[Mapping[str, object]] = json.loads(self.request("POST", "/tools/find", body))
        return found

    def store(self, files: Iterable[Path]) -> str:
        """Send files with dcmtk's storescu, as docs/viewers.md says, and return what it prints.

        Raises:
            OrthancError: a file was refused.
        """
        names = [str(path) for path in files]
        command = [command_path("storescu"), "-R", "-aec", "ORTHANC", "127.0.0.1", str(DICOM_PORT), *names]
        done = self._network.run(command, timeout=120)
        said = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode:
            raise OrthancError(f"storescu ended with {done.returncode}: {said}")
        return said

    def delete_study(self, study_uid: str) -> None:
        """Delete a study and everything in it."""
        for found in self.find("Study", StudyInstanceUID=study_uid):
            self.request("DELETE", f"/studies/{found['ID']}")


class PageServer:
    """A build of OHIF, served beside Orthanc with one origin, from `with` to its end.

    Args:
        network: where it and Orthanc listen.
        dist: folder of the build.
        folder: for its log.
        port: where it listens.
    """

    _SCRIPT = Path(__file__).with_name("ohif_pages.py")

    def __init__(self, network: LoopbackNetwork, dist: Path, folder: Path, port: int) -> None:
        self._network, self._dist, self._folder, self._port = network, dist, folder, port

    def __enter__(self) -> PageServer:
        command = [sys.executable, "-I", str(self._SCRIPT), str(self._dist), str(self._port), str(HTTP_PORT)]
        self.log = self._folder / f"pages-{self._port}.log"
        self._process: subprocess.Popen[bytes] = self._network.start(command, self.log)
        self.url = f"http://127.0.0.1:{self._port}"
        probe = [sys.executable, "-I", str(_REQUEST), "GET", f"{self.url}/index.html", str(_START_SECONDS)]
        try:
            done = self._network.run(probe, timeout=_START_SECONDS + 30)
            assert done.returncode == 0, done.stderr.decode()
            # Not the pages of another version, whose server still holds the port.
            assert done.stdout == (self._dist / "index.html").read_bytes()
        except BaseException:
            stop(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self._process)
