"""The processes and devices that train one model together, by Hugging Face Accelerate.

Every process takes its slice of each batch, and gradients are summed over all; so a recipe means the same on one
process or many. What starts them is ``torchrun`` or ``accelerate launch``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.artifact import Array
from edgekit.distillation.forward import device_of
from edgekit.errors import TrainingError
from edgekit.ranks import processes
from edgekit.recipe_training import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

_PLAIN = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU")
PROJECT = "edgekit"


def make_accelerator(settings: Training, logs: Path | None) -> Accelerator:
    """What runs the training: device, precision, the other processes, trackers.

    Args:
        settings: The recipe's.
        logs: Folder for trackers that write files; None: no tracker is started.

    Raises:
        TrainingError: The precision needs a device that is not here, a tracker is not installed, or Accelerate was
            configured for what this trainer does not do.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    trackers = [] if logs is None else list(settings.trackers)
    for name in trackers:
        _check_tracker(name)
    # The state is one for the whole process, and teacher and student may differ in precision.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=settings.mixed_precision,
            log_with=trackers or None,
            project_dir=logs,
        )
    except ValueError as exc:
        raise _wrong_precision(settings, str(exc).splitlines()[0]) from exc
    if settings.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise _wrong_precision(settings, "fp16 on a CPU")
    kind = accelerator.distributed_type.value
    if kind not in _PLAIN:
        raise TrainingError(
            "Accelerate was configured for a way to train that this trainer does not know",
            found=kind,
            allowed=", ".join(_PLAIN),
            fix="run accelerate config again, or start the processes with torchrun",
        )
    return accelerator


def _wrong_precision(settings: Training, found: str) -> TrainingError:
    return TrainingError(
        f"mixed_precision = {settings.mixed_precision!r} does not work here",
        found=found,
        allowed="no, or bf16 where the device computes in it; fp16 on a GPU",
        fix="set mixed_precision to no or bf16",
    )


def _check_tracker(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise TrainingError(
            f"tracker {name!r} is not installed",
            found=f"trackers = [{name!r}]",
            fix=f"pip install {name}, or remove it from the recipe",
        )


@contextmanager
def placed(device: torch.device, *modules: nn.Module | None) -> Iterator[None]:
    """Modules on a device while the block runs; each goes back to where it was."""
    moved = [(module, device_of(module)) for module in modules if module is not None]
    for module, home in moved:
        if home != device:
            module.to(device)
    try:
        yield
    finally:
        for module, home in moved:
            if home != device:
                module.to(home)


def own_slice(indices: Array, accelerator: Accelerator) -> Array:
    """This process's part of a batch; the parts differ by one sample at most."""
    own: Array = np.array_split(indices, accelerator.num_processes)[accelerator.process_index]
    return own


def shared(value: Any, accelerator: Accelerator | None = None) -> Any:
    """The main process's value, in every process."""
    if processes() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    if accelerator is None:
        start_processes()
    return broadcast_object_list([value])[0]


def start_processes() -> torch.device:
    """Joins the other processes, where there are any; gives the device that this one trains on."""
    from accelerate import PartialState

    device: torch.device = PartialState(cpu=not torch.accelerator.is_available()).device
    return device


def wait() -> None:
    """Until every process has come this far."""
    if processes() > 1:
        from accelerate import PartialState

        start_processes()
        PartialState().wait_for_everyone()


def of_all(value: Any, accelerator: Accelerator) -> list[Any]:
    """The values of all processes, in their order."""
    if accelerator.num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    found: list[Any] = gather_object([value])
    return found


def total(values: Sequence[float], accelerator: Accelerator) -> list[float]:
    """Numbers summed over all processes."""
    if accelerator.num_processes == 1:
        return list(values)
    summed: Tensor = accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum")
    return [float(value) for value in summed.tolist()]


def sum_gradients(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """Sums the gradients of all processes; a parameter that one of them did not use counts as zero there.

    One reduction of all gradients at a time, which needs no wrapper around the model: layers keep their names, and
    what a loss learns beside the model is summed alike.
    """
    if accelerator.num_processes == 1:
        return
    learned = [p for p in parameters if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in learned])
    flat = accelerator.reduce(flat, "sum")
    for p, part in zip(learned, flat.split([p.numel() for p in learned]), strict=True):
        p.grad = part.view_as(p).clone()


def average_statistics(module: nn.Module, accelerator: Accelerator) -> None:
    """Averages what is no parameter, such as running statistics, over all processes."""
    if accelerator.num_processes == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(accelerator.reduce(buffer.detach().clone(), "mean"))
