"""A large folder of small photographs: ``python -m benchmarks.images [--images 200000] [--side 64]``.

Generates JPEGs, prepares them (killed in the middle by SIGKILL, then gone on with), and goes through an epoch. Shown
are images a second, how busy the cores were, and the peak memory of each process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES, DIFFERENT = 10, 2_000
STEP = """
import json, logging, os, resource, sys, time
from pipeline.data.images.folder import ImageFolder
logging.basicConfig(level=logging.INFO, format="    %(message)s", stream=sys.stderr)
began = time.perf_counter()
data = ImageFolder(path=sys.argv[1], data_dir=sys.argv[2], image_size=int(sys.argv[3]), batch_size=128)
data.setup()
ready, used = time.perf_counter(), sum(os.times()[:4])
seen = sum(len(y) for chunk in data.training_loader(0) for x, y in chunk)
ended = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
found = {"setup": ready - began, "cpu": used, "images": seen, "epoch": ended - ready}
print(json.dumps({**found, "peak": peak, "worker": workers}))
"""


def generate(root: Path, count: int, side: int) -> None:
    """Write the folder: a few thousand pictures, again and again with other bytes behind the image."""
    draw = np.random.default_rng(0)
    pictures = []
    for _ in range(min(count, DIFFERENT)):
        coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    for number in range(count):
        folder = root / f"class_{number % CLASSES}"
        if number < CLASSES:
            folder.mkdir(parents=True)
        # What follows the end of the image is no part of it.
        (folder / f"{number:07}.jpg").write_bytes(
            pictures[number % len(pictures)] + number.to_bytes(8, "big")
        )


def busy() -> tuple[float, float]:
    """Seconds that the machine's cores worked and that they had, since it started."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def gone_on(command: list[str], marks: Path) -> tuple[dict[str, Any], float, float]:
    """What the command says that goes on, and the share of its time, and of its decoding, that the cores were busy.

    Args:
        command: The command.
        marks: The file that gets a line for each block; beside it the manifest appears once all are there.
    """
    size, seen = marks.stat().st_size, [busy()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    manifest = marks.with_name("manifest.json")
    while process.poll() is None:
        if (len(seen) == 1 and marks.stat().st_size > size) or (len(seen) == 2 and manifest.exists()):
            seen.append(busy())
        time.sleep(0.02)
    seen.append(busy())
    if process.returncode or len(seen) != 4:
        raise SystemExit("the command that was to go on did not")
    assert process.stdout is not None
    start, first, last, end = seen
    shares = [(to[0] - since[0]) / (to[1] - since[1]) for since, to in ((start, end), (first, last))]
    return json.loads(process.stdout.read()), shares[0], shares[1]


def main() -> None:
    """Generate, prepare, kill, go on, read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root, data = Path(place) / "pictures", Path(place) / "data"
        began = time.perf_counter()
        generate(root, options.images, options.side)
        print(
            f"{options.images:,} JPEGs of {options.side}×{options.side}: written in {time.perf_counter() - began:.0f} s"
        )
        command = [sys.executable, "-c", STEP, str(root), str(data), str(options.side)]
        process = subprocess.Popen(command)
        while not (marks := list(data.glob("cache/pictures-*/done.jsonl"))) or not _half(marks[0], options):
            if process.poll() is not None:
                raise SystemExit("it ended before it could be killed; take more images")
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        there = len(marks[0].read_text().splitlines())
        print(f"killed when {there} blocks were there")
        found, share, decoding = gone_on(command, marks[0])
        print(f"went on and was ready in {found['setup']:.1f} s, {found['cpu']:.1f} s of processor time;")
        print(f"the machine's cores were busy {decoding:.0%} of the time that it decoded,")
        print(f"{share:.0%} of the whole command's")
        again = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(f"ready from the cache in {again['setup']:.1f} s")
        print(f"an epoch of {again['images']:,} images: {again['images'] / again['epoch']:,.0f} images/s")
        worst = max(found["peak"], again["peak"])
        print(f"peak memory {worst / 1e9:.2f} GB, of a worker {found['worker'] / 1e9:.2f} GB")


def _half(marks: Path, options: argparse.Namespace) -> bool:
    blocks = -(-options.images // min(1024, (4 << 20) // (3 * options.side**2)))
    return len(marks.read_text().splitlines()) >= blocks / 2


if __name__ == "__main__":
    main()
