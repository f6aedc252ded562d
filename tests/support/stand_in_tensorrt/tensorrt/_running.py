"""From a plan to answers: runtime, engine and execution context."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import sys
import traceback
import weakref
from dataclasses import dataclass

import numpy as np
import onnxruntime

from tensorrt import _driver
from tensorrt._plan import Plan, Tensor
from tensorrt._words import (
    DataType,
    ExecutionContextAllocationStrategy,
    ILogger,
    TensorIOMode,
    asked_to_fail,
    refuse,
)

_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT64": np.int64}
_ALIGNMENT = 256
_RUBBISH = 0xAA
_CONTEXT_BYTES = 4096
_numbers = itertools.count(1)
_runs: weakref.WeakValueDictionary[int, _Run] = weakref.WeakValueDictionary()
"""What can still be run, by the number that the driver is given; a context has the only other reference."""


@dataclass(frozen=True)
class _Bound:
    """A tensor at an address, in the shape of a profile."""

    tensor: Tensor
    address: int
    profile: int

    @property
    def nbytes(self) -> int:
        count = int(np.prod(self.tensor.shapes[self.profile], dtype=np.int64))
        return count * np.dtype(_NUMPY[self.tensor.dtype]).itemsize

    def array(self) -> np.ndarray:
        """The memory itself."""
        content = (ctypes.c_char * self.nbytes).from_address(self.address)
        return np.frombuffer(content, _NUMPY[self.tensor.dtype]).reshape(self.tensor.shapes[self.profile])


@dataclass(frozen=True, eq=False)
class _Run:
    """What one `execute_async_v3` gives to a stream."""

    session: onnxruntime.InferenceSession
    inputs: tuple[_Bound, ...]
    outputs: tuple[_Bound, ...]
    scratch: tuple[int, int]

    def run(self) -> None:
        for address, nbytes in ((each.address, each.nbytes) for each in (*self.inputs, *self.outputs)):
            if not _driver.is_live(address, nbytes):
                raise RuntimeError("a tensor's memory was given back before the run")
        if self.scratch[1]:
            if not _driver.is_live(*self.scratch):
                raise RuntimeError("the scratch memory was given back before the run")
            ctypes.memset(self.scratch[0], _RUBBISH, self.scratch[1])
        given = {each.tensor.name: each.array() for each in self.inputs}
        answers = self.session.run([each.tensor.name for each in self.outputs], given)
        for each, answer in zip(self.outputs, answers, strict=True):
            each.array()[...] = answer


@_driver.HostFunction
def _perform(number: int) -> None:
    """Called by the driver, when the run's turn comes."""
    # A host function may not call the driver, and what is collected might.
    collects = gc.isenabled()
    gc.disable()
    try:
        run = _runs.get(number)
        if run is None:
            raise RuntimeError("the execution context was given back before the run")
        run.run()
    except Exception:  # noqa: BLE001 - there is nobody to raise to: on a GPU it would be lost
        traceback.print_exc()
        _driver.lose_device()
    finally:
        if collects:
            gc.enable()


class IExecutionContext:
    """Runs an engine at one profile at a time."""

    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self._memory = _driver.DeviceMemory(_CONTEXT_BYTES)
        self._addresses: dict[str, int] = {}
        self._shapes: set[str] = set()
        self._scratch = (0, 0)
        self._runs: list[_Run] = []
        self.active_optimization_profile = 0
        self._changed()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if asked_to_fail("profile") or not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._refuse(f"there is no optimization profile {profile_index}")
        if _driver.captures(stream_handle):
            _driver.spoil_capture(stream_handle)
            return self._refuse("the optimization profile cannot be changed in a capture")
        self.active_optimization_profile = profile_index
        self._shapes.clear()
        self._changed()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        tensor = self._tensor(name)
        if tensor is None or tensor not in self.engine._plan.inputs or asked_to_fail("shape"):
            return self._refuse(f"{name} is no input that could have a shape")
        if tuple(shape) != tensor.shapes[self.active_optimization_profile]:
            wanted = tensor.shapes[self.active_optimization_profile]
            return self._refuse(f"{name} cannot be {tuple(shape)}: the optimization profile has {wanted}")
        self._shapes.add(name)
        self._changed()
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        tensor = self._tensor(name)
        if tensor is None:
            return (-1,)
        return tensor.shapes[self.active_optimization_profile] if self._has_shapes() else tensor.declared

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._tensor(name) is None or asked_to_fail("address"):
            return self._refuse(f"there is no tensor {name} that could have an address")
        self._addresses[name] = memory
        self._changed()
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        self._scratch = (memory, size)
        self._changed()

    def execute_async_v3(self, stream_handle: int) -> bool:
        try:
            captures = _driver.captures(stream_handle)
        except _driver.DeviceError as error:
            return self._refuse(str(error))
        problem = "it was asked to fail" if asked_to_fail("enqueue") else self._problem()
        if captures and not problem:
            problem = self._problem_in_capture()
            if problem:
                _driver.spoil_capture(stream_handle)
        if problem:
            return self._refuse(problem)
        if self._number is None:
            self._number = self._new_run()
        code = _driver.launch(stream_handle, _perform, self._number)
        if code:
            return self._refuse(f"Cuda Runtime ({_driver.error_text(code)})")
        self._has_run = self._has_run or not captures
        return True

    def _changed(self) -> None:
        self._number: int | None = None
        self._has_run = False

    def _tensor(self, name: str) -> Tensor | None:
        tensors = (*self.engine._plan.inputs, *self.engine._plan.outputs)
        return next((each for each in tensors if each.name == name), None)

    def _has_shapes(self) -> bool:
        return self._shapes == {each.name for each in self.engine._plan.inputs}

    def _bound(self, tensors: tuple[Tensor, ...]) -> tuple[_Bound, ...]:
        profile = self.active_optimization_profile
        return tuple(_Bound(each, self._addresses[each.name], profile) for each in tensors)

    def _problem(self) -> str:
        plan, needed = self.engine._plan, self.engine.device_memory_size_v2
        if not self._has_shapes():
            return "input shapes are not set since the optimization profile was"
        for tensor in (*plan.inputs, *plan.outputs):
            if not self._addresses.get(tensor.name):
                return f"{tensor.name} has no address"
        for each in (*self._bound(plan.inputs), *self._bound(plan.outputs)):
            if each.address % _ALIGNMENT:
                return f"the address of {each.tensor.name} is no multiple of {_ALIGNMENT}"
            if not _driver.is_live(each.address, each.nbytes):
                return f"{each.tensor.name} is not at {each.nbytes} bytes of live memory"
        address, nbytes = self._scratch
        if needed and (not address or address % _ALIGNMENT or nbytes < needed):
            return f"{needed} bytes of scratch memory are needed, and {nbytes} were given"
        if needed and not _driver.is_live(address, nbytes):
            return f"the scratch memory is not {nbytes} bytes of live memory"
        return ""

    def _problem_in_capture(self) -> str:
        if asked_to_fail("capture"):
            return "it was asked not to be captured"
        return "" if self._has_run else "it has to run once before it is captured"

    def _new_run(self) -> int:
        plan, number = self.engine._plan, next(_numbers)
        run = _Run(self.engine._session, self._bound(plan.inputs), self._bound(plan.outputs), self._scratch)
        # Graphs keep to the addresses that they were captured with, so earlier runs stay.
        self._runs.append(run)
        _runs[number] = run
        return number

    def _refuse(self, text: str) -> bool:
        refuse(self.engine._logger, text)
        return False

    def __del__(self) -> None:
        # Before memory goes, which waits for what is still to be done.
        getattr(self, "_runs", []).clear()


class ICudaEngine:
    """A deserialised plan, its weights on the device."""

    def __init__(self, runtime: Runtime, plan: Plan) -> None:
        self._runtime, self._logger, self._plan = runtime, runtime.logger, plan
        self._memory = _driver.DeviceMemory(len(plan.onnx))
        self._session = onnxruntime.InferenceSession(
            plan.onnx, _options(), providers=["CPUExecutionProvider"]
        )

    @property
    def num_io_tensors(self) -> int:
        return len(self._plan.inputs) + len(self._plan.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan.inputs[0].shapes)

    @property
    def device_memory_size_v2(self) -> int:
        return max(map(self.get_device_memory_size_for_profile_v2, range(self.num_optimization_profiles)))

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        batch = self._plan.inputs[0].shapes[profile_index][0]
        return batch * int(os.environ.get("STAND_IN_TENSORRT_SCRATCH", "65536"))

    def get_tensor_name(self, index: int) -> str:
        return (*self._plan.inputs, *self._plan.outputs)[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self._tensor(name) in self._plan.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._tensor(name).dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensor(name).declared

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [self._tensor(name).shapes[profile_index]] * 3

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> IExecutionContext | None:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED, "the stand-in has only this"
        return self._made(IExecutionContext, self)

    def _made(self, kind: type[IExecutionContext], *arguments: object) -> IExecutionContext | None:
        try:
            if asked_to_fail("context"):
                raise _driver.DeviceError("OutOfMemory (it was asked to fail)")
            return kind(*arguments)
        except _driver.DeviceError as error:
            refuse(self._logger, str(error))
            return None

    def _tensor(self, name: str) -> Tensor:
        return next(each for each in (*self._plan.inputs, *self._plan.outputs) if each.name == name)


class Runtime:
    """Deserialises plans of its own module and version."""

    _engine = ICudaEngine

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        module = sys.modules[type(self).__module__.partition(".")[0]]
        try:
            if asked_to_fail("deserialise"):
                raise ValueError("it was asked to fail")
            if not _driver.device_count():
                raise ValueError("CUDA initialization failure")
            plan = Plan.from_bytes(serialized_engine)
            if (plan.module, plan.version) != (module.__name__, module.__version__):
                raise ValueError(f"the plan is of {plan.module} {plan.version}, not of {module.__version__}")
            return self._engine(self, plan)
        except (ValueError, _driver.DeviceError) as error:
            refuse(self.logger, str(error))
            return None


def _options() -> onnxruntime.SessionOptions:
    """As the CPU backend computes, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options
