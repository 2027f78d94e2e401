"""Multiply-adds of a network's forward pass, by the module in which they happen."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mtlbench.model import MultiTaskModel

SHARED = "shared"


@dataclass(frozen=True)
class Count:
    """What a module holds and does, its children's included. shape: of its last output; "" where it gives no tensor."""

    parameters: int
    multiply_adds: int
    shape: str


class _Counter(TorchDispatchMode):
    """Adds up operations under the innermost module that runs, by torch's own formulas."""

    def __init__(self) -> None:
        super().__init__()
        self.part = SHARED
        self.stack: list[str] = []
        self.found: dict[tuple[str, str], int] = defaultdict(int)
        self.shapes: dict[str, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:  # which counts a multiplication and an addition as two
            module = self.stack[-1] if self.stack else ""
            self.found[module, self.part] += formula(*args, **(kwargs or {}), out_val=result) // 2
        return result

    def watch(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.stack.append(name))
            module.register_forward_hook(lambda _module, _inputs, output, name=name: self._leave(name, output))

    def _leave(self, name: str, output: Any) -> None:
        self.stack.pop()
        while isinstance(output, tuple | list) and output:
            output = output[-1]
        self.shapes[name] = " x ".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else ""


class Counted:
    """A network's parameters and the multiply-adds of one image, of convolutions and products of matrices.

    Batch normalisation, activations, pooling, upsampling and products of single numbers count nothing. The network is
    run once, in evaluation, task by task: best on torch's device "meta", where tensors have shapes and no values.

    model: hooks stay in it.
    image: [1, C, H, W].
    """

    def __init__(self, model: MultiTaskModel, image: Tensor):
        self.model = model
        self.owners = _owners(model)
        counter = _Counter()
        counter.watch(model)
        model.eval()
        with torch.no_grad(), counter:
            features = model.encode(image)
            for task in model.tasks:
                counter.part = task
                model.decode(task, features, tuple(image.shape[-2:]))
        self.found, self.shapes = counter.found, counter.shapes

    def of_modules(self, depth: int) -> dict[str, tuple[nn.Module, Count, str]]:
        """{name: (module, count, part)} down to `depth`, of all modules that hold parameters or do something."""
        found = {}
        for name, module in self.model.named_modules():
            if not name or name.count(".") >= depth:
                continue
            inside = [n for (at, _), n in self.found.items() if at == name or at.startswith(f"{name}.")]
            parameters = {id(p): p.numel() for p in module.parameters()}
            if parameters or inside:
                count = Count(sum(parameters.values()), sum(inside), self.shapes.get(name, ""))
                found[name] = (module, count, self._part(name, "shared"))
        return found

    def of_parts(self) -> dict[str, Count]:
        """{"shared" or task: count}."""
        parameters = dict.fromkeys((SHARED, *self.model.tasks), 0)
        for parameter in self.model.parameters():
            parameters[self.owners.get(id(parameter), SHARED)] += parameter.numel()
        operations = dict.fromkeys(parameters, 0)
        for (name, running), n in self.found.items():
            operations[self._part(name, running)] += n
        return {part: Count(n, operations[part], "") for part, n in parameters.items()}

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def multiply_adds(self) -> int:
        return sum(self.found.values())

    def _part(self, name: str, running: str) -> str:
        """The task whose parameters alone the module holds; of one without, of the module around it."""
        while name:
            owners = {self.owners.get(id(p), SHARED) for p in self.model.get_submodule(name).parameters()}
            if owners:
                return owners.pop() if len(owners) == 1 else SHARED
            name = name.rpartition(".")[0]
        return running


def _owners(model: MultiTaskModel) -> Mapping[int, str]:
    """{id of a parameter: the one task that reaches it}; shared ones have none."""
    return {id(p): task for task in model.tasks for p in model.task_parameters(task)}
