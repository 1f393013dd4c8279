"""Files that are damaged or too large, and many processes at once: named, built again, or shared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.data.core import memory
from pipeline.data.images.folder import ImageFolder
from pipeline.data.text.files import read_text
from pipeline.errors import UserError
from pipeline.models.saved import load
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train
from pipeline.tracking import drain
from pipeline.tracking.queries import Store

pytestmark = pytest.mark.faults

FaultRecorder = Callable[[str, int, int, int], None]
PREPARE = """
import sys
from pipeline.data.images.folder import ImageFolder
data = ImageFolder(path=sys.argv[1], data_dir=sys.argv[2], image_size=8)
data.prepare_data()
data.setup()
print(data.digest, len(data.train), int(data.train.x.long().sum()))
"""


def folder_of_images(directory: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (directory / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / name / f"{number}.png")
    return directory


def test_processes_that_prepare_one_data_set_at_once_see_the_same(
    tmp_path: Path, long_form: bool, record_fault: FaultRecorder
) -> None:
    images = folder_of_images(tmp_path / "images", 150)
    count = 6 if long_form else 2
    command = [sys.executable, "-c", PREPARE, str(images), str(tmp_path / "data")]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [error for _, error in answers if error] == []
    assert len({output for output, _ in answers}) == 1
    entries = sorted(path.name for path in (tmp_path / "data/cache").iterdir() if path.is_dir())
    assert len(entries) == 2 and entries[0] == "image-digests" and entries[1].startswith("pictures-")
    record_fault("processes preparing one data set at once", count, count, 0)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A working directory with a registered model, and its weights in the store."""
    place = tmp_path_factory.mktemp("store")
    words = ["experiment=digits_linear", "trainer=cpu", "trainer.max_epochs=1", "callbacks.progress=null"]
    words += [f"paths.experiments_dir={place / 'experiments'}"]
    result = train(compose(words), Hooks(directory=place / "run"))
    assert result.run_id is not None
    assert drain(place / "experiments", 60)
    store = Store(None, place / "experiments")
    store.register(result.run_id, "digits")
    np.save(place / "in.npy", np.zeros((3, 8, 8), np.uint8))
    (weights,) = (place / "experiments/artifacts").rglob("weights.safetensors")
    return place, weights


@pytest.mark.parametrize("damage", ["cut", "altered", "gone", "empty"])
def test_a_damaged_model_of_the_registry_is_named(
    registered: tuple[Path, Path],
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    record_fault: FaultRecorder,
) -> None:
    place, weights = registered
    monkeypatch.chdir(place)
    words = ["task=predict", "task.model_uri=models:/digits/1", "task.input=in.npy", "task.output=out.csv"]
    whole = weights.read_bytes()
    try:
        if damage == "gone":
            weights.unlink()
        elif damage == "altered":
            # One bit of a weight: the file is still a whole one.
            weights.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
        else:
            weights.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
        assert main(words) == 2
    finally:
        weights.write_bytes(whole)
    error = capsys.readouterr().err
    assert ("lacks weights.safetensors" if damage == "gone" else "damaged") in error
    assert "Traceback" not in error
    assert not (place / "out.csv").exists()
    assert main(words) == 0
    (place / "out.csv").unlink()
    record_fault(f"model of the registry: {damage}", 1, 1, 0)


def test_a_saved_model_of_before_there_were_checksums_is_read(
    registered: tuple[Path, Path], tmp_path: Path
) -> None:
    import json
    import shutil

    shutil.copytree(registered[0] / "run/model", tmp_path / "model")
    description = json.loads((tmp_path / "model/model.json").read_text(encoding="utf-8"))
    assert set(description.pop("sha256")) == {"weights.safetensors", "encoder.json"}
    (tmp_path / "model/model.json").write_text(json.dumps(description), encoding="utf-8")
    assert load(tmp_path / "model").spec.classes == tuple("0123456789")


class Little:
    """What psutil says on a machine with next to no memory."""

    available = 1000


def test_data_too_large_for_memory_is_refused_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    images = folder_of_images(tmp_path / "images", 3)
    (tmp_path / "text.txt").write_text("some text " * 500, encoding="utf-8")
    monkeypatch.setattr(psutil, "virtual_memory", Little)
    # Images lie on disk, decoded: these are as many as there are.
    data = ImageFolder(path=images, data_dir=tmp_path / "data", image_size=16, prepared_gb=0.0)
    data.setup()
    assert len(data.train) + len(data.validation or ()) + len(data.test or ()) == 6
    with pytest.raises(UserError, match=r"text\.txt needs about"):
        read_text(tmp_path / "text.txt")


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    machine = psutil.virtual_memory().available
    monkeypatch.setattr(memory, "_LIMIT", tmp_path)
    assert memory.free_memory() == pytest.approx(machine, rel=0.2)
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("2500\n")
    (tmp_path / "memory.stat").write_text("anon 1500\ninactive_file 700\n")
    assert memory.free_memory() == 3000 - 2500 + 700
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() > 3000


def test_a_real_limit_of_memory_ends_with_one_message(tmp_path: Path, long_form: bool) -> None:
    """More than the process may have: refused by the numbers, or reported by the system, never a stack."""
    if not long_form:
        pytest.skip("in the long form (--long)")
    rows = "\n".join(
        ",".join([str((i * 7 + c * 13) % 101 / 4) for c in range(40)] + [str(i % 2)]) for i in range(2000)
    )
    header = ",".join([f"c{i}" for i in range(40)] + ["y"])
    (tmp_path / "t.csv").write_text(f"{header}\n{rows}\n", encoding="utf-8")
    program = """
import resource, sys
import torch
from pipeline.__main__ import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), used + (3 << 30)))
sys.exit(main(sys.argv[1:]))
"""
    words = [
        "data=csv",
        f"data.path={tmp_path}/t.csv",
        "data.target=y",
        "model=mlp",
        "model.hidden_units=[500000]",
    ]
    words += [
        "logger=none",
        "trainer=cpu",
        "data.batch_size=2000",
        f"paths.experiments_dir={tmp_path}/experiments",
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("COV")}, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback (most" not in done.stderr
    assert "data.batch_size=2000" in done.stderr, done.stderr


def test_every_test_that_the_documentation_names_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs/reliability.md").read_text(encoding="utf-8")))
    there: set[str] = set()
    for path in (root / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(named) > 40
    assert sorted(named - there) == []
