"""`trainer.strategy=fsdp`: each process keeps a part of every weight, of its gradient and of the optimiser's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from pipeline.errors import UserError
from pipeline.training.parts import parted_like, whole


class Sharded(DDPStrategy):
    """Several processes that train one model, of whose weights, gradients and optimiser's state each keeps a part.

    Weights are gathered for a forward and backward pass and parted again after it. Checkpoints hold whole tensors, as
    those of any other trainer do, and the model is whole again when the fit has ended.
    """

    parts_the_model = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._unparted: dict[nn.Module, _Before] = {}

    def configure_ddp(self) -> None:
        """Part the model, in place; every process begins with the weights of the first."""
        module = self.lightning_module
        assert module is not None
        model: nn.Module = module.model  # type: ignore[assignment]
        for tensor in (*model.parameters(), *model.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)
        self._unparted = {part: _Before.of(part) for part in model.modules()}
        try:
            fully_shard(model, mesh=init_device_mesh(self.root_device.type, (self.world_size,)))
        except (AssertionError, ValueError) as error:
            raise UserError(f"trainer.strategy=fsdp cannot part this model: {error}") from None
        register_fsdp_forward_method(model, "forward_state")

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The model's whole weights."""
        return {name: whole(tensor) for name, tensor in super().lightning_module_state_dict().items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The optimiser's whole state."""
        found: dict[str, Any] = super().optimizer_state(optimizer)
        state = {
            number: {name: whole(value) for name, value in of_one.items()}
            for number, of_one in found["state"].items()
        }
        return {**found, "state": state}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each optimiser this process's part of the state in a checkpoint."""
        for optimizer, found in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            state = {
                number: {
                    name: parted_like(value, parameters[number]) if isinstance(value, Tensor) else value
                    for name, value in of_one.items()
                }
                for number, of_one in found["state"].items()
            }
            optimizer.load_state_dict({**found, "state": state})

    def teardown(self) -> None:
        """Make the model whole again."""
        _put_together(self._unparted)
        self._unparted = {}
        for optimizer in self.optimizers:
            optimizer.state.clear()
        super().teardown()


@dataclass
class _Before:
    """What a module was before it was parted, which adds hooks and notes to it and changes its class."""

    kind: type[nn.Module]
    names: set[str]
    hooks: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> _Before:
        hooks = {name: value.copy() for name, value in module.__dict__.items() if "hooks" in name}
        return cls(type(module), set(module.__dict__), hooks)

    def restore(self, module: nn.Module) -> None:
        module.__class__ = self.kind
        for name in set(module.__dict__) - self.names:
            del module.__dict__[name]
        module.__dict__.update(self.hooks)


def _put_together(before: dict[nn.Module, _Before]) -> None:
    made: dict[int, nn.Parameter] = {}
    for module, of_it in before.items():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(whole(parameter.detach()), parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
        of_it.restore(module)
