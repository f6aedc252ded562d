"""PyTorch as a user would call it: eagerly, compiled, and in mixed precision on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stenosis_trt.bench.peers.peer import PeerAbsent, Run, Workload
from stenosis_trt.bench.peers.torch_graph import UnsupportedGraph, graph_module

if TYPE_CHECKING:
    import torch


def load_torch_eager(workload: Workload) -> Run:
    """Load a network for PyTorch on the CPU, in eager mode."""
    return _runner(_module(workload), workload, "cpu")


def load_torch_compiled(workload: Workload) -> Run:
    """Load a network for PyTorch on the CPU and compile it."""
    return _runner(_compiled(_module(workload)), workload, "cpu")


def load_torch_eager_cuda(workload: Workload) -> Run:
    """Load a network for PyTorch on a GPU, in eager mode."""
    return _runner(_module(workload).to("cuda"), workload, "cuda")


def load_torch_compiled_cuda(workload: Workload) -> Run:
    """Load a network for PyTorch on a GPU and compile it."""
    return _runner(_compiled(_module(workload).to("cuda")), workload, "cuda")


def load_torch_amp_cuda(workload: Workload) -> Run:
    """Load a network for PyTorch on a GPU: channels last, automatic mixed precision in float16."""
    import torch

    module = _module(workload).to("cuda", memory_format=torch.channels_last)
    return _runner(module, workload, "cuda", amp=True)


def load_torchvision(workload: Workload) -> Run:
    """Load torchvision's EfficientNet_B5 with random weights, as large as the file's grader, on the CPU."""
    import torch
    from torchvision.models import efficientnet_b5

    torch.manual_seed(0)
    return _runner(efficientnet_b5(num_classes=5).eval(), workload, "cpu")


def load_torchvision_cuda(workload: Workload) -> Run:
    """Load torchvision's EfficientNet_B5 on a GPU: channels last, automatic mixed precision."""
    import torch
    from torchvision.models import efficientnet_b5

    torch.manual_seed(0)
    module = efficientnet_b5(num_classes=5).eval().to("cuda", memory_format=torch.channels_last)
    return _runner(module, workload, "cuda", amp=True)


def _module(workload: Workload) -> torch.nn.Module:
    try:
        return graph_module(workload.model.read_bytes())
    except UnsupportedGraph as error:
        raise PeerAbsent(f"The ONNX graph cannot be run by PyTorch: {error}") from error


def _compiled(module: torch.nn.Module) -> Any:
    import torch

    return torch.compile(module, dynamic=False)


def _runner(module: Any, workload: Workload, device: str, amp: bool = False) -> Run:
    """Run a module on the workload's batch, from the host and back to it."""
    import torch

    if workload.threads is not None:
        torch.set_num_threads(workload.threads)
    host = torch.from_numpy(workload.batch)
    layout = torch.channels_last if amp else torch.contiguous_format

    def run() -> Any:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=amp):
            output = module(host.to(device).contiguous(memory_format=layout))
        return output.float().cpu().numpy()

    return run
