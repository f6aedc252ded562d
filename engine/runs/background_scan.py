"""Headers are read while the models are opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from pathlib import Path

from stenosis_trt.engine.dicom.reader import DicomReader, Scan
from stenosis_trt.engine.support.closeable import Closeable

_SECONDS_BETWEEN_REPORTS = 0.1


class BackgroundScan(Closeable):
    """A scan in a thread of its own, from its construction on. Use it as a context manager.

    Args:
        reader: reads the headers; closed with the scan. Use it for nothing else until `result` returns.
        paths: folders, files, DICOMDIRs, archives.
    """

    def __init__(self, reader: DicomReader, paths: Sequence[Path]) -> None:
        self.reader = reader
        self._done = 0
        reader.start()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="scan")
        self._scan: Future[Scan] | None = self._pool.submit(reader.scan, paths, self._note)

    def result(self, progress: Callable[[int], None]) -> Scan:
        """Wait for the scan and return it, once: headers of thousands of studies are not kept here.

        Args:
            progress: called now and then with the number of files read so far.

        Raises:
            ReaderError, InputError: see `DicomReader.scan`.
            ValueError: the result was taken before.
        """
        scan, self._scan = self._scan, None
        if scan is None:
            raise ValueError("The result of a scan is there once.")
        try:
            while True:
                if self._done:
                    progress(self._done)
                try:
                    return scan.result(_SECONDS_BETWEEN_REPORTS)
                except NotDone:
                    if scan.done():
                        raise
        except KeyboardInterrupt:
            # Ends the reads in progress; otherwise their time limit would be waited for.
            self.close()
            raise

    def close(self) -> None:
        """Close the reader, which ends the scan."""
        self.reader.close()
        self._pool.shutdown(cancel_futures=True)

    def _note(self, done: int) -> None:
        self._done = done
