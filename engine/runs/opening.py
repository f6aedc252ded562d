"""Models are opened in a thread while modules are imported and headers are read."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.selection import BackendChoice, needs_no_gpu, open_backend
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.support.closeable import Closeable


class OpenedModels(NamedTuple):
    """A pack in the precision that runs, the open backend, and why it was chosen."""

    pack: Pack
    backend: Backend
    decision: BackendChoice


def open_models(options: GradeOptions) -> OpenedModels:
    """Open the pack and the backend of a run; the caller closes the backend.

    Raises:
        PackError, DeviceError: one of them cannot be used.
    """
    pack = open_pack(options.pack, options.trust, verify=False)
    backend, decision = open_backend(pack, options.device, options.precision, options.threads, options.gpu)
    try:
        ready = decision.pack_to_run(pack)
        ready.verify_files(variants=False)
        return OpenedModels(ready, backend, decision)
    except BaseException:
        backend.close()
        raise


class Opening(Closeable):
    """`open_models` in a thread, from the construction on. Use it as a context manager.

    Where a GPU may be used, the models are opened by `result`: a CUDA context belongs to a thread.
    """

    def __init__(self, options: GradeOptions) -> None:
        self._options = options
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._opened: Future[OpenedModels] | None = None
        if needs_no_gpu(options.device):
            self._opened = self._pool.submit(open_models, options)

    def result(self) -> OpenedModels:
        """Wait for the models. The caller closes the backend. Call it once.

        Raises:
            PackError, DeviceError: see `open_models`.
        """
        if self._opened is None:
            return open_models(self._options)
        found = self._opened.result()
        self._opened = None
        return found

    def close(self) -> None:
        """Close the backend if nothing has asked for it."""
        opened, self._opened = self._opened, None
        self._pool.shutdown()
        if opened is not None and opened.exception() is None:
            opened.result().backend.close()
