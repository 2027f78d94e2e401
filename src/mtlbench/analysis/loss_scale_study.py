"""The runs of the study on the small network: optimizers, frozen and trained backbone, eps, betas of 0, methods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from omegaconf import DictConfig

from mtlbench.analysis.loss_scale_epsilon import Effect, effect
from mtlbench.analysis.loss_scale_network import (
    MULTIPLES,
    PARTS,
    Difference,
    Setting,
    Trajectory,
    difference,
    train,
)

EPS = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
NAMES = {"sgd": "SGD", "adam": "Adam", "adam_per_task": "Adam per task"}


@dataclass(frozen=True)
class Case:
    """One way of training with plain losses, with the losses scaled, and with powers of two near these scales.

    Powers of two change no digit of a product: what is invariant is equal to the last bit then (`exact`).
    """

    name: str
    setting: Setting
    plain: Trajectory
    scaled: Trajectory
    powers: Trajectory

    @property
    def differences(self) -> dict[str, Difference]:
        return {part: difference(self.plain, self.scaled, part) for part in PARTS}

    @property
    def exact(self) -> bool:
        same = all(np.array_equal(self.plain.updates[part], self.powers.updates[part]) for part in PARTS)
        return same and len(self.plain.losses) > 0


@dataclass(frozen=True)
class Method:
    """A method of the suite before an optimizer. said: its docstring on losses' scales; problem: why it stopped."""

    name: str
    optimizer: str
    steps: int
    differences: dict[str, Difference]
    problem: str
    said: str


@dataclass
class Study:
    """frozen, trained: cases; common: all losses by one scale; bare: betas of 0; epsilon: {eps: {part: Difference}},
    Adam with a frozen backbone; effects: {part: Effect} at the configured eps; turned: the share of the backbone's
    coordinates that Adam with betas of 0 moves the other way in its first step."""

    scales: dict[str, float]
    frozen: list[Case] = field(default_factory=list)
    trained: list[Case] = field(default_factory=list)
    common: list[Case] = field(default_factory=list)
    bare: list[Case] = field(default_factory=list)
    epsilon: dict[float, dict[str, Difference]] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    turned: float = 0.0
    methods: list[Method] = field(default_factory=list)


def powers_of_two(scales: Mapping[str, float]) -> dict[str, float]:
    """The nearest ones: 10 is 8, 0.1 is 1/8; what would be 1 is 2."""
    found = {name: 2.0 ** round(np.log2(scale)) for name, scale in scales.items()}
    return {name: 2.0 if power == 1 else power for name, power in found.items()}


def case(name: str, setting: Setting, scales: Mapping[str, float]) -> Case:
    return Case(name, setting, train(setting), train(setting, scales), train(setting, powers_of_two(scales)))


def study(base: Setting, optimal: DictConfig, optimizers: Sequence[str], scales: dict[str, float], eps: float) -> Study:
    """All but the table of methods. optimal: the node of UW-O; base: the setting of equal weights."""
    found = Study(scales)
    for optimizer in optimizers:
        one, adam = replace(base, optimizer=optimizer), optimizer != "sgd"
        name = NAMES[optimizer]
        for e in (0.0, eps) if adam and eps else (0.0,):
            label = f"{name}, eps {e:g}" if adam else name
            mine = replace(one, eps=e)
            if optimizer != "adam_per_task":  # with a frozen backbone it is Adam
                found.frozen.append(case(label, replace(mine, frozen=True), scales))
            found.trained.append(case(label, mine, scales))
        alike = dict.fromkeys(MULTIPLES, max(scales.values()))
        found.common.append(case(f"{name}, eps 0" if adam else name, one, alike))
        if optimizer != "adam_per_task":
            label = f"UW-O, {name}" + ", eps 0" * adam
            if not adam:
                found.frozen.append(case(label, replace(one, node=optimal, frozen=True), scales))
            found.trained.append(case(label, replace(one, node=optimal), scales))
        if adam:
            found.bare.append(case(name, replace(one, betas=(0.0, 0.0)), scales))
    if "adam" in optimizers:
        _epsilon(found, replace(base, optimizer="adam", frozen=True), eps)
        first = next(c for c in found.bare if c.setting.optimizer == "adam")
        moves = [np.sign(run.updates["backbone"][0]) for run in (first.plain, first.scaled)]
        found.turned = float((moves[0] != moves[1]).mean())
    return found


def _epsilon(found: Study, setting: Setting, eps: float) -> None:
    for e in sorted({0.0, eps, *EPS}):
        plain, other = (train(replace(setting, eps=e), scales) for scales in (None, found.scales))
        found.epsilon[e] = {part: difference(plain, other, part) for part in MULTIPLES}
    for part in MULTIPLES:
        found.effects[part] = effect(replace(setting, eps=eps), part, found.scales.get(part, 1.0))


def methods(
    nodes: Mapping[str, tuple[DictConfig, str]],
    base: Setting,
    scales: dict[str, float],
    optimizers: Sequence[str],
    told: Callable[[str], None],
) -> list[Method]:
    """Every method before SGD and before Adam with eps 0. nodes: {name: (node, what its docstring says)}."""
    found = []
    for name, (node, said) in nodes.items():
        for optimizer in optimizers:
            if optimizer == "adam_per_task":
                continue
            setting = replace(base, node=node, optimizer=optimizer, eps=0.0)
            plain, other = train(setting), train(setting, scales)
            apart = {part: difference(plain, other, part) for part in PARTS}
            found.append(Method(name, optimizer, base.steps, apart, plain.problem or other.problem, said))
        told(name)
    return found
