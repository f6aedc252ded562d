"""A page server for OHIF, as a command: DIST PORT ORTHANC_PORT. Requests for /dicom-web go on to Orthanc.

Pages and images come from one origin, so that the browser asks for no permission of another one.
"""

from __future__ import annotations

import http.client
import http.server
import json
import sys
from pathlib import Path

CONFIGURATION = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showErrorDetails": "always",
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "orthanc",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "orthanc",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "orthanc",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}
"""OHIF's configuration; see https://docs.ohif.org/configuration/configurationFiles."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of OHIF's build, its configuration, and Orthanc's DICOMweb."""

    protocol_version = "HTTP/1.1"
    dist: Path
    orthanc_port: int

    def __init__(self, *arguments: object) -> None:
        self.extensions_map |= {".wasm": "application/wasm", ".js": "text/javascript"}
        super().__init__(*arguments, directory=str(self.dist))  # type: ignore[arg-type]

    def end_headers(self) -> None:
        """Isolate the page from other origins: its decoders share memory between threads."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_GET(self) -> None:
        """Answer with a file, the configuration or what Orthanc answers."""
        if self.path.startswith("/dicom-web"):
            self.do_POST()
        elif self.path.split("?")[0] == "/app-config.js":
            script = f"window.config = {json.dumps(CONFIGURATION)};".encode()
            self._answer(200, "text/javascript", script)
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Pass a request on to Orthanc."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        orthanc = http.client.HTTPConnection("127.0.0.1", self.orthanc_port, timeout=60)
        passed = {
            name: self.headers[name] for name in ("Accept", "Content-Type", "Host") if name in self.headers
        }
        orthanc.request(self.command, self.path, body, passed)
        answer = orthanc.getresponse()
        kind = answer.getheader("Content-Type") or "application/octet-stream"
        self._answer(answer.status, kind, answer.read())
        orthanc.close()

    def translate_path(self, path: str) -> str:
        """Return the file of a path; paths that OHIF's own router knows get its only page."""
        found = Path(super().translate_path(path))
        return str(found if found.is_file() else self.dist / "index.html")

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until the process is ended."""
    Handler.dist, Handler.orthanc_port = Path(sys.argv[1]), int(sys.argv[3])
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()


if __name__ == "__main__":
    main()
