"""Files are written whole or not at all, whatever ends the writing."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.spec import Spec
from pipeline.files import write_json, write_text, written
from pipeline.models.linear import Linear
from pipeline.models.saved import load, save


@pytest.mark.parametrize("durable", [False, True])
def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path, durable: bool) -> None:
    path = write_text(tmp_path / "name.json", "before")
    with written(path, durable=durable) as draft:
        draft.write_text("half")
        assert path.read_text() == "before"
        draft.write_text("after")
    assert path.read_text() == "after"
    with pytest.raises(RuntimeError, match="roof"), written(path, durable=durable) as draft:
        draft.write_text("half")
        raise RuntimeError("the roof fell in")
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["name.json"]


def test_a_directory_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), written(tmp_path / "table") as draft:
        draft.mkdir()
        (draft / "x.npy").write_bytes(b"half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with written(tmp_path / "table") as draft:
        draft.mkdir()
        (draft / "x.npy").write_bytes(b"whole")
        assert not (tmp_path / "table").exists()
    assert (tmp_path / "table/x.npy").read_bytes() == b"whole"
    assert [file.name for file in tmp_path.iterdir()] == ["table"]


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.files import written
with written(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
FULL = """
import resource, sys
from pathlib import Path
from pipeline.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "x" * 100000)
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.mark.parametrize("program", [KILLED, FULL])
def test_a_kill_or_a_full_disk_leaves_what_was_there(tmp_path: Path, program: str) -> None:
    path = write_text(tmp_path / "name.json", "before")
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode != 0
    assert path.read_text() == "before"
    if program is KILLED:
        assert done.returncode == -signal.SIGKILL
    else:
        assert [file.name for file in tmp_path.iterdir()] == ["name.json"]


def test_threads_that_write_the_same_file_do_not_share_a_draft(tmp_path: Path) -> None:
    texts = [str(number) * 50_000 for number in range(4)]
    threads = [
        threading.Thread(target=write_text, args=(tmp_path / "x", text)) for text in texts for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_text() in texts
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_json_has_no_numbers_that_are_none(tmp_path: Path) -> None:
    values = {
        "a": [math.nan, -math.inf, 1.5],
        3: (np.float32(0.5), np.int64(2), np.nan),
        "t": torch.tensor(2.0),
    }
    path = write_json(tmp_path / "x.json", values)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "a": [None, None, 1.5],
        "3": [0.5, 2, None],
        "t": 2.0,
    }


def test_a_model_whose_saving_breaks_off_is_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec("binary", "vector", (2,), outputs=1, classes=("a", "b"))
    first, second = Linear(spec), Linear(spec)
    encoder = VectorEncoder.fit(np.zeros((2, 2)), ["x", "y"])
    before = save(first, encoder, tmp_path / "model")
    files = sorted(before.iterdir())
    with monkeypatch.context() as broken:
        broken.setattr(VectorEncoder, "to_state", lambda self: pytest.fail("the disk is full"))
        with pytest.raises(pytest.fail.Exception):
            save(second, encoder, tmp_path / "model")
    assert sorted(before.iterdir()) == files
    assert torch.equal(load(before).module.state_dict()["output.weight"], first.state_dict()["output.weight"])
    save(second, encoder, tmp_path / "model")
    assert torch.equal(
        load(before).module.state_dict()["output.weight"], second.state_dict()["output.weight"]
    )
