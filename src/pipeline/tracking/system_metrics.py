"""Samples of processor, memory, disk, network and GPU use, under MLflow's own names."""

import contextlib
import importlib
from typing import Any

import psutil


class Sampler:
    """Samples the machine, and the process that trains.

    Args:
        pid: Id of the training process.
    """

    def __init__(self, pid: int) -> None:
        psutil.cpu_percent()
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):
            self._process = psutil.Process(pid)
        self._network = _network_megabytes()
        self._gpus = _gpu_handles()

    def sample(self) -> dict[str, float]:
        """The values now; processor use is the average since the last sample."""
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage("/")
        received, sent = _network_megabytes()
        values: dict[str, float] = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
            "network_receive_megabytes": received - self._network[0],
            "network_transmit_megabytes": sent - self._network[1],
        }
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                values["process_memory_usage_megabytes"] = self._process.memory_info().rss / 1e6
        for index, handle in enumerate(self._gpus):
            with contextlib.suppress(Exception):
                values |= _gpu_values(index, handle)
        return {f"system/{name}": round(value, 1) for name, value in values.items()}


def _network_megabytes() -> tuple[float, float]:
    counters = psutil.net_io_counters()
    return (counters.bytes_recv / 1e6, counters.bytes_sent / 1e6) if counters else (0.0, 0.0)


def _gpu_handles() -> list[Any]:
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        # No NVIDIA library, driver or card: there is nothing to sample.
        return []


def _gpu_values(index: int, handle: Any) -> dict[str, float]:
    pynvml = importlib.import_module("pynvml")
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        f"gpu_{index}_memory_usage_percentage": memory.used / memory.total * 100,
        f"gpu_{index}_memory_usage_megabytes": memory.used / 1e6,
        f"gpu_{index}_utilization_percentage": float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        f"gpu_{index}_power_usage_watts": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
