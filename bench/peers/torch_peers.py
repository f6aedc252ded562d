"""PyTorch as a user would call it: eagerly, compiled, and in mixed precision on a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stenosis_trt.bench.peers.peer import Loaded, PeerAbsent, Workload
from stenosis_trt.bench.peers.torch_graph import UnsupportedGraph, graph_module

if TYPE_CHECKING:
    import torch


def load_torch_eager(workload: Workload) -> Loaded:
    """Load a network for PyTorch on the CPU, in eager mode."""
    return _runner(_module(workload), workload, "cpu")


def load_torch_compiled(workload: Workload) -> Loaded:
    """Load a network for PyTorch on the CPU and compile it."""
    return _runner(_compiled(_module(workload)), workload, "cpu")


def load_torch_eager_cuda(workload: Workload) -> Loaded:
    """Load a network for PyTorch on a GPU, in eager mode."""
    return _runner(_module(workload).to("cuda"), workload, "cuda")


def load_torch_compiled_cuda(workload: Workload) -> Loaded:
    """Load a network for PyTorch on a GPU and compile it."""
    return _runner(_compiled(_module(workload).to("cuda")), workload, "cuda")


def load_torch_amp_cuda(workload: Workload) -> Loaded:
    """Load a network for PyTorch on a GPU: channels last, automatic mixed precision in float16."""
    import torch

    module: Any = _module(workload).to("cuda")
    module = module.to(memory_format=torch.channels_last)
    return _runner(module, workload, "cuda", amp=True)


def load_torchvision(workload: Workload) -> Loaded:
    """Load torchvision's EfficientNet_B5 with random weights for PyTorch on the CPU, in eager mode."""
    import torch

    torch.manual_seed(0)
    module = import_module("torchvision.models").efficientnet_b5(num_classes=5)
    return _runner(module.eval(), workload, "cpu")


def _module(workload: Workload) -> torch.nn.Module:
    try:
        return graph_module(workload.model.read_bytes())
    except UnsupportedGraph as error:
        raise PeerAbsent(f"The ONNX graph cannot be run by PyTorch: {error}") from error


def _compiled(module: torch.nn.Module) -> Any:
    import torch

    return torch.compile(module, dynamic=False)


def _runner(module: Any, workload: Workload, device: str, amp: bool = False) -> Loaded:
    """Run a module on the workload's batch, which is copied to the device once."""
    import torch

    if workload.threads is not None:
        torch.set_num_threads(workload.threads)
    layout = torch.channels_last if amp else torch.contiguous_format
    batch = torch.from_numpy(workload.batch).to(device, memory_format=layout)
    found: dict[str, torch.Tensor] = {}

    def run() -> None:
        mixed = torch.autocast(device, torch.float16) if amp else nullcontext()
        with torch.inference_mode(), mixed:
            found["outputs"] = module(batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return Loaded(run, lambda: found["outputs"].float().cpu().numpy())
