"""Processors and memory. An accelerator is wanted, not required."""

import os

from cacovid.commands.checks.result import Check, reason

GIB = 2**30


def check_devices() -> list[Check]:
    """CPU, memory, and every CUDA device, on which a product is really computed."""
    return [_cpu(), *_cuda()]


def _cpu() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB memory"
    return Check(name="cpu", state="ok", detail=f"{usable} of {os.cpu_count()} cores usable{memory}")


def _cuda() -> list[Check]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        if built is None:
            detail, get = "this torch is built without CUDA", "install a CUDA build of torch"
        else:
            detail = f"torch (built for CUDA {built}) sees no device: the CPU is used"
            get = "a machine with an NVIDIA GPU; where there is one: check nvidia-smi and CUDA_VISIBLE_DEVICES"
        return [Check(name="cuda", state="missing", detail=detail, get=get, required=False)]
    return [_cuda_device(index) for index in range(torch.cuda.device_count())]


def _cuda_device(index: int) -> Check:
    import torch

    name = f"cuda:{index}"
    try:
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        ones = torch.ones(8, 8, device=name)
        if (ones @ ones).sum().item() != 8**3:
            raise RuntimeError("a product of two matrices came out wrong")
    except RuntimeError as error:
        get = "see that the driver fits this torch build, and that the device is not full"
        return Check(name=name, state="problem", detail=reason(error), get=get, required=False)
    detail = f"{properties.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, CUDA {torch.version.cuda}"
    return Check(name=name, state="ok", detail=detail)
