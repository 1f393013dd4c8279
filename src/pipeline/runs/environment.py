"""What a result depends on beside configuration and data: versions and hardware."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "pytorch-lightning", "numpy", "pandas", "scikit-learn", "torchvision", "safetensors")


def environment() -> dict[str, str]:
    """Versions and hardware as names and values."""
    import torch

    from pipeline import __version__

    found = {"hydra-lightning-pipeline": __version__}
    found |= {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["processor"] = _processor()
    found["threads"] = str(torch.get_num_threads())
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
        found["cublas workspace"] = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "default")
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
