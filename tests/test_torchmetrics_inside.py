"""torchmetrics and torch's compiler stand there without having run, and nobody who uses them can tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = (
    "('scipy', 'torchvision', 'transformers', 'sklearn', 'sympy', 'torch._inductor', 'matplotlib', 'triton')"
)


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
import torch, torchmetrics

class Total(torchmetrics.Metric):
    def __init__(self):
        super().__init__()
        self.add_state("seen", torch.zeros(()), "sum")
    def update(self, x):
        self.seen += x
    def compute(self):
        return self.seen
    def plot(self, val=None, ax=None):
        return self._plot(val, ax)
total = Total()
total.update(2.0)
print([name for name in {HEAVY} if name in sys.modules])
figure, axes = total.plot()
print(axes.lines[0].get_ydata()[0].item(), total.plot(ax=axes)[1] is axes)
metrics = torchmetrics.MetricCollection([Total()])
metrics.update(1.0)
metrics.plot(ax=axes, together=True)
try:
    metrics.plot(ax=figure, together=True)
except ValueError as error:
    print(error)
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
        *("[]", "[]", "2.0 True"),
        "Expected argument `ax` to be a matplotlib axis object, but got "
        "<class 'matplotlib.figure.Figure'> when `together=True`",
        *("True True", "True", "Accuracy False"),
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

class Lines(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.line, self.example_input_array = torch.nn.Linear(2, 3), torch.ones(5, 2)
    def forward(self, x):
        return self.line(x)
print(pl.utilities.model_summary.ModelSummary(Lines()).total_flops)
from torch.utils import flop_counter
with flop_counter.FlopCounterMode(display=False) as counted:
    Lines()(torch.ones(5, 2))
print(counted.get_total_flops(), counted.__class__ is flop_counter.FlopCounterMode)
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
        # Of 5 rows: 2 products and 2 sums for each of 3 outputs.
        *("3.0 False", "60", "60 True", "3.0 -0.1", "[True, False] True", "torch._dynamo.exc True"),
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
