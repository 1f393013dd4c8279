"""torchmetrics and torch's compiler stand there without having run, and nobody who uses them can tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = "('scipy', 'torchvision', 'transformers', 'sklearn', 'sympy', 'torch._inductor')"


def run(program: str) -> list[str]:
    """What a program prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pipeline\n" + program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_lightning_comes_without_the_rest_and_knows_the_same_classes() -> None:
    shown = run(
        f"""
import pytorch_lightning as pl
print([name for name in {HEAVY} if name in sys.modules])
import torchmetrics
from torchmetrics.classification import MulticlassAccuracy
print(isinstance(MulticlassAccuracy(3), pl.core.module.Metric), torchmetrics.Metric is torchmetrics.metric.Metric)
print(isinstance(torchmetrics.MetricCollection([MulticlassAccuracy(3)]), pl.core.module.MetricCollection))
print(torchmetrics.Accuracy.__name__, hasattr(torchmetrics, "nothing"))
for statement in ("import torchmetrics.nothing", "from torchmetrics import nothing"):
    try:
        exec(statement)
    except ImportError as error:
        print(type(error).__name__, error.name)
"""
    )
    assert shown == [
        *("[]", "True True", "True", "Accuracy False"),
        *("ModuleNotFoundError torchmetrics.nothing", "ImportError torchmetrics"),
    ]


def test_a_file_of_it_that_is_asked_for_first_is_there_once() -> None:
    # Each in a process of its own, forked before anything else is imported than what all of them import.
    shown = run(
        """
import importlib, os, torch
for name in ("torchmetrics.metric", "torchmetrics.text.bert", "torchmetrics.functional"):
    sys.stdout.flush()
    if not os.fork():
        module = importlib.import_module(name)
        import torchmetrics
        print(module is sys.modules[name], module is eval(name))
        print(torchmetrics.metric.Metric is torchmetrics.Metric is torchmetrics.utilities.checks.Metric)
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0
"""
    )
    assert shown == 3 * ["True True", "True"]


def test_a_step_is_taken_without_the_compiler_and_a_compiled_model_is_known_and_taken_apart() -> None:
    shown = run(
        f"""
import pytorch_lightning as pl, torch
from lightning_fabric.wrappers import OptimizedModule, _unwrap_compiled
from pytorch_lightning.trainer.connectors.logger_connector.result import _ResultCollection
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
def step():
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    before = model.bias.item()
    optimizer.step()
    return round(model.bias.item() - before, 3)
print(step(), isinstance(model, OptimizedModule), [name for name in {HEAVY} if name in sys.modules])

class Doubled(torch.nn.Module):
    @torch.compiler.disable
    def kept(self, x):
        return x + x if not torch.compiler.is_compiling() else x
    def forward(self, x):
        return self.kept(x) + 1
doubled = Doubled()
print(doubled(torch.ones(1)).item(), 'torch._dynamo.eval_frame' in sys.modules)
compiled = torch.compile(doubled, backend="eager")
print(compiled(torch.ones(1)).item(), step())
print([isinstance(one, OptimizedModule) for one in (compiled, model)], _unwrap_compiled(compiled)[0] is doubled)
torch._dynamo.reset()
try:
    torch.compile(doubled, backend="eager", fullgraph=True)(torch.ones(1))
except Exception as error:
    print(type(error).__module__, "kept" in str(error))
"""
    )
    assert shown == [
        "-0.1 False []",
        *("3.0 False", "3.0 -0.1", "[True, False] True", "torch._dynamo.exc True"),
    ]


def test_a_whole_run_on_the_cpu_comes_without_the_compiler(tmp_path: Path) -> None:
    words = ["+experiment=digits_mlp", "debug=fast", "trainer=cpu", f"paths.experiments_dir={tmp_path}"]
    shown = run(
        f"""
from pipeline.__main__ import main
code = main({words})
import torch
heavy = ("torch._dynamo.eval_frame", "torch._inductor", "torch.distributed.tensor")
loaded = [name for name in heavy if name in sys.modules]
print(code, torch.are_deterministic_algorithms_enabled(), loaded)
"""
    )
    assert shown[-1] == "0 False []"


def test_a_file_of_the_compiler_that_is_asked_for_first_is_there_once() -> None:
    shown = run(
        """
import importlib
file = importlib.import_module("torch._dynamo.eval_frame")
import torch
print(file is sys.modules[file.__name__] is torch._dynamo.eval_frame)
print(torch._dynamo.OptimizedModule is file.OptimizedModule is torch._dynamo.eval_frame.OptimizedModule)
from lightning_fabric.wrappers import OptimizedModule
print(OptimizedModule is file.OptimizedModule)
"""
    )
    assert shown == 3 * ["True"]
