"""Whether this machine has what a trainer asks for; torch is imported only where there may be an accelerator."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

# Two processes are what trainer=ddp_cpu needs, on any machine.
_LEAST_PROCESSES = 2


def check_devices(trainer: dict[str, Any]) -> None:
    """Refuse a trainer that this machine cannot serve.

    Args:
        trainer: The ``trainer`` section, resolved.

    Raises:
        UserError: Something is missing; the message says what, and which trainer to use instead.
    """
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    wanted = _wanted(devices)
    if accelerator in ("gpu", "cuda"):
        _check_gpus(wanted, devices)
    elif accelerator == "mps":
        _check_mps(wanted, devices)
    elif accelerator == "tpu":
        if find_spec("torch_xla") is None:
            raise UserError(
                "trainer=tpu: torch_xla is not installed, so no TPU can be used; use trainer=auto"
            )
    elif accelerator == "auto" and wanted not in (1, "auto") and _gpus():
        _check_gpus(wanted, devices)
    else:
        _check_processes(wanted, devices)


def _wanted(devices: Any) -> int | list[int] | str:
    """A number of devices, a list of their numbers, ``all``, or ``auto``."""
    if devices == "auto":
        return "auto"
    if isinstance(devices, str):
        numbers = [part.strip() for part in devices.split(",") if part.strip()]
        if not all(part.lstrip("-").isdecimal() for part in numbers) or not numbers:
            raise _refused(devices)
        devices = [int(part) for part in numbers] if "," in devices else int(numbers[0])
    if isinstance(devices, list):
        if not devices or any(isinstance(d, bool) or not isinstance(d, int) or d < 0 for d in devices):
            raise _refused(devices)
        if len(set(devices)) < len(devices):
            raise UserError(f"trainer.devices={_shown(devices)}: a device is listed twice")
        return devices
    if isinstance(devices, bool) or not isinstance(devices, int) or devices == 0 or devices < -1:
        raise _refused(devices)
    return "all" if devices == -1 else devices


def _refused(devices: Any) -> UserError:
    return UserError(
        f"trainer.devices={_shown(devices)}: expected a whole number of at least 1, auto, -1 for all, "
        "or a list of device numbers like [0,1]"
    )


def _check_gpus(wanted: int | list[int] | str, devices: Any) -> None:
    found = _gpus()
    if not found:
        raise UserError(
            "trainer.accelerator=gpu: no GPU was found on this machine; use trainer=cpu or trainer=auto"
        )
    highest = max(wanted) + 1 if isinstance(wanted, list) else wanted
    if isinstance(highest, int) and highest > found:
        what = _count(found, "GPU")
        raise UserError(
            f"trainer.devices={_shown(devices)}: this machine has {what}; use trainer.devices={found} "
            "or trainer=auto"
        )


def _gpus() -> int:
    if platform.system() == "Linux" and not _device_files():
        return 0
    import torch

    return torch.cuda.device_count()


def _device_files() -> bool:
    """Whether a GPU's driver shows: NVIDIA's, AMD's, or that of Windows' Linux."""
    return any(any(Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "kfd", "dxg"))


def _check_mps(wanted: int | list[int] | str, devices: Any) -> None:
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        raise UserError(
            "trainer=mps: this is not an Apple computer with its own GPU; use trainer=auto or trainer=cpu"
        )
    import torch

    if not torch.backends.mps.is_available():
        raise UserError("trainer=mps: this build of torch cannot use the GPU; use trainer=cpu")
    if wanted not in ("auto", "all", 1, [0]):
        raise UserError(
            f"trainer.devices={_shown(devices)}: an Apple computer has one GPU; use trainer.devices=1"
        )


def _check_processes(wanted: int | list[int] | str, devices: Any) -> None:
    if wanted == "auto":
        return
    if not isinstance(wanted, int):
        raise UserError(
            f"trainer.devices={_shown(devices)}: on the processor devices is a number of processes; "
            "use trainer.devices=1, or trainer=gpu where there are GPUs"
        )
    most = max(_LEAST_PROCESSES, os.cpu_count() or 1)
    if wanted > most:
        raise UserError(
            f"trainer.devices={_shown(devices)}: on the processor that is a process each, and this machine "
            f"has {_count(os.cpu_count() or 1, 'core')}; use at most trainer.devices={most}"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _shown(devices: Any) -> str:
    return str(devices).replace(" ", "").replace("None", "null")
