"""The import of OpenVINO, without what it would send.

`import openvino` sends an event to Google Analytics and leaves an identifier in ~/intel, by the package
openvino-telemetry that comes with it, unless that package cannot be imported: OpenVINO then does without.
"""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any

_TELEMETRY = "openvino_telemetry"
_LOCK = Lock()


def import_openvino() -> Any:
    """Import OpenVINO and return the module; nothing is sent.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    # Models are opened by several threads.
    with _LOCK:
        before = sys.modules.get(_TELEMETRY)
        # An entry of None makes the import of that name fail.
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            import openvino  # noqa: TID251 - this is the one place
        finally:
            if before is None:
                del sys.modules[_TELEMETRY]
            else:
                sys.modules[_TELEMETRY] = before
        return openvino
