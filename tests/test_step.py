"""The step against brute-force autograd: one graph, one gradient a task, in float64."""

import copy
import functools
import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mtlbench import config
from mtlbench.architectures.multi_decoder import MultiDecoder
from mtlbench.methods.imtl_g import IMTLG
from mtlbench.model import Backbone, Head, MultiTaskModel
from mtlbench.step import StepResult, losses_after, step
from mtlbench.task import Loss, Task
from mtlbench.weighting import Weighting

TASKS = ("a", "b", "c")
LEVELS = ("loss", "feature", "parameter")
METHODS = [
    ["method=equal"],
    ["method=equal", "method.reduction=mean"],
    ["method=uncertainty"],
    ["method=imtl_l"],
    ["method=imtl_g"],
    ["method=imtl_g", "method.level=parameter"],
    ["method=imtl"],
    ["method=imtl", "method.level=parameter"],
    ["method=mgda"],
    ["method=mgda", "method.level=parameter"],
    ["method=mgda", "method.touches=everything"],
    ["method=pcgrad"],
    ["method=pcgrad", "method.level=feature"],
    ["method=hybrid"],
]


class Squared(Loss):
    """The mean over valid terms of (prediction - target)^2, NaN = no label."""

    def counts(self, target: Tensor) -> Tensor:
        return (~target.isnan()).sum(dtype=torch.float64).reshape(1)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        difference = torch.where(target.isnan(), 0 * prediction, prediction - target.nan_to_num())
        return difference.square().sum() / counts[0].clamp(min=1).to(prediction.dtype)


class Faulty(Squared):
    """A loss whose value or gradient is not finite."""

    def __init__(self, what: str):
        self.what = what

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        zero = 0 * prediction.sum()
        return {"nan": zero + math.nan, "inf": zero + math.inf, "gradient": zero.square().sqrt()}[self.what]


class Passes(torch.autograd.Function):
    """The identity, which counts how often it is passed backward."""

    @staticmethod
    def forward(ctx, x: Tensor, module: nn.Module) -> Tensor:
        ctx.module = module
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        ctx.module.backwards += 1
        return gradient, None


class Trunk(Backbone):
    """Two tensors: a map [B, 4, 4, 4] and a vector [B, 3] made from it."""

    channels, reductions = (4, 3), (1, 0)

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.forwards = self.backwards = 0

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        self.forwards += 1
        x = Passes.apply(self.norm(self.conv(image)).tanh(), self)
        return x, self.linear(x.mean((2, 3))).tanh()


class Reader(Head):
    def __init__(self, channels: Sequence[int], reductions: Sequence[int], out_channels: int):
        super().__init__()
        self.map, self.vector = nn.Linear(channels[0], out_channels), nn.Linear(channels[1], out_channels)
        self.forwards = self.backwards = 0

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        self.forwards += 1
        assert size == (4, 4)
        return Passes.apply(self.map(features[0].square().mean((2, 3))) + self.vector(features[1]), self)


class Branching(MultiTaskModel):
    """What a and b share lies behind what all share, so no one representation is all that the heads read."""

    shared_representation = False
    tasks = TASKS

    def __init__(self):
        super().__init__()
        self.trunk, self.middle = Trunk(), nn.Linear(3, 3)
        self.heads = nn.ModuleDict({task: Reader((4, 3), (1, 0), 2) for task in TASKS})

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.trunk(image)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        x, z = features
        return self.heads[task]((x, z if task == "c" else self.middle(z)), size)

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return list(self.heads[task].parameters())


class WronglyDeclared(Branching):
    shared_representation = True


class OneTensorEach(MultiDecoder):
    """Task a reads the map alone, c the vector alone."""

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        x, z = features
        read = {"a": (x, torch.zeros_like(z)), "b": (x, z), "c": (torch.zeros_like(x), z)}[task]
        return super().decode(task, read, size)


class Mixing(Weighting):
    """IMTL-G after a transform that mixes tasks by learned numbers."""

    levels = (*LEVELS, "layer")

    def __init__(self, tasks: Sequence[str], level: str, touches: str = "shared"):
        super().__init__(tasks, level)
        self.touches = touches
        self.mix = nn.Parameter(torch.eye(len(tasks)).double() + 0.3 * torch.rand(len(tasks), len(tasks)).double())
        self.shift = nn.Parameter(torch.rand(len(tasks), dtype=torch.float64))
        self.after = IMTLG(tasks)

    def transform(self, losses, tasks, rng):
        at = self.positions(tasks)
        return self.mix[at][:, at] @ losses.sqrt() + self.shift[at].exp() * losses.log() - self.shift[at]

    def weights(self, losses, gramian, tasks, rng):
        return self.after.weights(losses, gramian, tasks, rng)


class Signs(Mixing):
    """No weighted sum: the coordinates on which the weighted gradients of all tasks agree in sign."""

    def combine(self, weights, jacobian, tasks, uniform):
        signs = (weights.to(jacobian)[:, None] * jacobian).sign()
        return torch.where(signs.eq(signs[0]).all(0), weights.to(jacobian) @ jacobian, 0.0)


class Listening(Weighting):
    """A gradient balance that keeps what it is given."""

    levels = ("feature", "parameter")

    def weights(self, losses, gramian, tasks, rng):
        self.seen = (losses, gramian, tuple(tasks))
        return torch.arange(1.0, len(losses) + 1, dtype=torch.float64)


def make_tasks(**losses: Loss) -> dict[str, Task]:
    return {name: Task(name, 2, losses.get(name, Squared()), (), output="vector") for name in TASKS}


def make_model(kind: type = MultiDecoder, dtype: torch.dtype = torch.float64) -> MultiTaskModel:
    torch.manual_seed(0)
    return (kind() if issubclass(kind, Branching) else kind(Trunk(), Reader, make_tasks())).to(dtype)


def make_batch(absent: Sequence[str] = (), dtype: torch.dtype = torch.float64) -> tuple[Tensor, dict[str, Tensor]]:
    """Six images; of each task other terms are without a label, of the absent ones all."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(6, 2, 4, 4, generator=generator, dtype=torch.float64).to(dtype)
    targets = {}
    for i, task in enumerate(TASKS):
        target = (1 + 3 * i) * torch.randn(6, 2, generator=generator, dtype=torch.float64)
        target[torch.rand(6, 2, generator=generator) < 0.2 * i] = math.nan
        targets[task] = (target * math.nan if task in absent else target).to(dtype)
    return image, targets


def build(overrides: list[str], tasks: Sequence[str] = TASKS) -> Weighting:
    return config.build_method(composed(*overrides), list(tasks)).double()


@functools.cache
def composed(*overrides: str) -> DictConfig:
    return config.load(overrides).method


def brute_force(
    model: MultiTaskModel, method: Weighting, image: Tensor, targets: dict[str, Tensor], level: str
) -> tuple[dict[str, Tensor | None], list[Tensor | None], Tensor, Tensor | None]:
    """Gradients of the model by name and of the method, losses and Gramian, from the definitions alone."""
    model, method = copy.deepcopy(model), copy.deepcopy(method)
    present = [t for t in TASKS if not targets[t].isnan().all()]
    z = model.encode(image)

    def loss_of(t, features):
        valid = ~targets[t].isnan()
        return (model.decode(t, features, (4, 4)) - targets[t])[valid].square().mean()

    losses = [loss_of(t, z) for t in present]
    values = torch.stack(losses).detach()
    shared = model.shared_parameters()

    def rows(of, inputs):
        found = [torch.autograd.grad(l, inputs, retain_graph=True, materialize_grads=True) for l in of]
        return torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in found])

    slope = torch.autograd.functional.jacobian(lambda x: method.transform(x, present, None), values)
    transformed = method.transform(values, present, None)
    if level == "loss":
        weights, gramian = torch.ones_like(values), None
        combined = torch.ones_like(values) @ slope @ rows(losses, shared)
    else:
        if level == "feature":  # each tensor of z is an input of the heads, though one is made from the other
            inputs = [f.detach().requires_grad_() for f in z]
            raw = rows([loss_of(t, inputs) for t in present], inputs)
        else:
            raw = rows(losses, shared)
        gramian, balanced = raw @ raw.T, slope @ raw
        weights = method.weights(transformed.detach(), balanced @ balanced.T, present, None)
        combined = method.combine(weights, balanced, present, None)
        if level == "feature":
            parts = [p.view_as(f) for p, f in zip(combined.split([f.numel() for f in z]), z, strict=True)]
            found = torch.autograd.grad(z, shared, parts, retain_graph=True, materialize_grads=True)
            combined = torch.cat([g.flatten() for g in found])
    everything = {id(p): g for p, g in zip(shared, combined.split([p.numel() for p in shared]), strict=True)}
    scale = slope.T @ (weights if method.touches == "everything" else torch.ones_like(values))
    for t, loss, s in zip(present, losses, scale, strict=True):
        own = model.task_parameters(t)
        found = torch.autograd.grad(loss, own, retain_graph=True)
        everything |= {id(p): s * g for p, g in zip(own, found, strict=True)}
    gradients = {
        name: everything[id(p)].view_as(p) if id(p) in everything else None for name, p in model.named_parameters()
    }
    learned = list(method.parameters())
    if learned:
        learned = list(torch.autograd.grad(transformed.sum(), learned, allow_unused=True))
    return gradients, learned, values, gramian


def close(found: Tensor | None, expected: Tensor | None, tolerance: float = 1e-12) -> bool:
    if expected is None or found is None:
        return found is None and expected is None
    return bool((found - expected).norm() <= tolerance * max(1.0, expected.norm().item()))


def check(model, method, image, targets, level) -> StepResult:
    gradients, learned, losses, gramian = brute_force(model, method, image, targets, level)
    result = step(model, make_tasks(), method, image, targets)
    assert result.problem is None
    assert close(result.losses, losses)
    assert close(result.gramian, gramian)
    for name, parameter in model.named_parameters():
        assert close(parameter.grad, gradients[name]), name
    for parameter, gradient in zip(method.parameters(), learned, strict=True):
        assert close(parameter.grad, gradient)
    total = math.sqrt(sum(g.square().sum().item() for g in gradients.values() if g is not None))
    assert result.gradient_norm == pytest.approx(total, rel=1e-12)
    return result


# ------------------------------------------------------------------------------------- brute force


@pytest.mark.parametrize("absent", [(), ("b",), ("a", "c")])
@pytest.mark.parametrize("touches", ["shared", "everything"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", [MultiDecoder, OneTensorEach])
def test_a_mixing_transform_and_imtl_g_by_brute_force(kind, level, touches, absent):
    image, targets = make_batch(absent)
    result = check(make_model(kind), Mixing(TASKS, level, touches), image, targets, level)
    assert result.tasks == tuple(t for t in TASKS if t not in absent)
    assert result.terms == {t: float((~targets[t].isnan()).sum()) for t in TASKS}


@pytest.mark.parametrize("touches", ["shared", "everything"])
@pytest.mark.parametrize("level", ["feature", "parameter"])
def test_a_combine_of_its_own_by_brute_force(level, touches):
    method, summing = Signs(TASKS, level, touches), Mixing(TASKS, level, touches)
    summing.load_state_dict(method.state_dict())
    model = make_model()
    check(model, method, *make_batch(), level)
    by_signs = model.backbone.conv.weight.grad
    step(model, make_tasks(), summing, *make_batch())
    assert not close(by_signs, model.backbone.conv.weight.grad, 1e-3)  # it has been asked, and says otherwise


@pytest.mark.parametrize("absent", [(), ("b",)])
@pytest.mark.parametrize("overrides", METHODS, ids=lambda o: " ".join(o).replace("method", ""))
def test_every_method_by_brute_force(overrides, absent):
    method = build(overrides)
    for parameter in method.parameters():
        parameter.data += 0.3
    check(make_model(), method, *make_batch(absent), method.level)


def test_the_method_sees_transformed_losses_and_gradients_of_the_present():
    class Halves(Listening):
        def transform(self, losses, tasks, rng):
            return losses / 2

    image, targets = make_batch(("b",))
    method = Halves(TASKS)
    result = step(make_model(), make_tasks(), method, image, targets)
    losses, gramian, tasks = method.seen
    assert tasks == result.tasks == ("a", "c")
    assert close(losses, result.losses / 2)
    assert close(gramian, result.gramian / 4)
    assert losses.dtype == gramian.dtype == torch.float64
    assert result.weights.tolist() == [0.5, 1.0]  # u = C' w with w = 1, 2


def test_weights_at_the_loss_level_are_the_slopes_of_the_transform():
    method = build(["method=imtl_l"])
    method.scale[1].data += 0.7
    result = step(make_model(), make_tasks(), method, *make_batch())
    assert close(result.weights, torch.tensor([1.0, math.exp(0.7), 1.0], dtype=torch.float64))
    assert result.gramian is None


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_a_transform_that_does_not_depend_on_the_losses_trains_nothing(level, learned):
    class Constant(Mixing):
        def transform(self, losses, tasks, rng):
            return self.shift[self.positions(tasks)] if learned else torch.ones_like(losses)

    model, method = make_model(), Constant(TASKS, level)
    result = step(model, make_tasks(), method, *make_batch())
    assert (result.problem, result.gradient_norm, result.weights.tolist()) == (None, 0.0, [0.0] * 3)
    assert method.shift.grad is None or method.shift.grad.tolist() == [1.0] * 3


# --------------------------------------------------------------------------- absent and partly labelled


@pytest.mark.parametrize("overrides", METHODS, ids=lambda o: " ".join(o).replace("method", ""))
def test_an_absent_task_leaves_what_the_run_without_it_gives(overrides):
    image, targets = make_batch(("b",))
    with_it, without = make_model(), make_model()
    method, smaller = build(overrides), build(overrides, ("a", "c"))
    tasks = make_tasks()
    some = {t: tasks[t] for t in ("a", "c")}
    rngs = [torch.Generator().manual_seed(3) for _ in range(2)]
    first = step(with_it, tasks, method, image, targets, rng=rngs[0])
    second = step(without, some, smaller, image, {t: targets[t] for t in some}, rng=rngs[1])
    assert torch.equal(first.weights, second.weights)
    assert first.terms["b"] == 0
    for (name, p), q in zip(with_it.named_parameters(), without.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None) == ("head_b" in name)
        assert p.grad is None or torch.equal(p.grad, q.grad)
    learned = [p.grad for p in method.parameters()]
    assert [g is None for g in learned] == [i == 1 for i in range(len(learned))]
    for p, q in zip([g for g in learned if g is not None], smaller.parameters(), strict=True):
        assert torch.equal(p, q.grad)


@pytest.mark.parametrize("level", LEVELS)
def test_a_batch_without_any_label_gives_no_gradient(level):
    model, method = make_model(), Mixing(TASKS, level)
    step(model, make_tasks(), method, *make_batch())
    image, targets = make_batch(TASKS)
    result = step(model, make_tasks(), method, image, targets)
    assert (result.tasks, result.problem, result.gradient_norm, len(result.losses)) == ((), None, 0.0, 0)
    assert all(p.grad is None for p in [*model.parameters(), *method.parameters()])
    assert len(losses_after(model, make_tasks(), image, targets, result.tasks)) == 0


# -------------------------------------------------------------------------- what is shared, what is not


def reached_by(model: MultiTaskModel) -> dict[str, set[str]]:
    """By autograd: the tasks whose prediction depends on each parameter."""
    found: dict[str, set[str]] = {name: set() for name, _ in model.named_parameters()}
    predictions = model(make_batch()[0])
    for task in TASKS:
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(predictions[task].sum(), parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                found[name].add(task)
    return found


@pytest.mark.parametrize("kind", [MultiDecoder, Branching])
def test_shared_is_what_two_tasks_or_more_reach(kind):
    model = make_model(kind)
    reached = reached_by(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in model.shared_parameters()} == {n for n, tasks in reached.items() if len(tasks) > 1}
    for task in TASKS:
        assert {names[id(p)] for p in model.task_parameters(task)} == {n for n, t in reached.items() if t == {task}}


@pytest.mark.parametrize("absent", [(), ("c",), ("a", "b")])
@pytest.mark.parametrize("level", ["loss", "parameter"])
def test_without_a_shared_representation_by_brute_force(level, absent):
    image, targets = make_batch(absent)
    model, method = make_model(Branching), Mixing(TASKS, level)
    if absent != ("a", "b"):
        check(model, method, image, targets, level)
        return
    step(model, make_tasks(), method, image, targets)
    assert all(p.grad is None for p in [*model.middle.parameters(), *model.heads["a"].parameters()])
    assert all(p.grad is not None for p in [*model.trunk.parameters(), *model.heads["c"].parameters()])


def test_the_feature_level_is_refused_without_a_shared_representation():
    with pytest.raises(ValueError, match=r"method\.level=feature: Branching has no single .* method\.level=parameter"):
        step(make_model(Branching), make_tasks(), build(["method=imtl"]), *make_batch())


@pytest.mark.parametrize("level", ["feature", "parameter"])
def test_parameters_shared_behind_the_representation_are_refused_not_mistaken(level):
    with pytest.raises(ValueError, match=r"WronglyDeclared: several heads share .* shared_representation = False"):
        step(make_model(WronglyDeclared), make_tasks(), Mixing(TASKS, level), *make_batch())


@pytest.mark.parametrize("level", LEVELS)
def test_a_frozen_backbone_trains_its_heads(level):
    model, method = make_model(), Mixing(TASKS, level)
    model.backbone.requires_grad_(False)
    result = step(model, make_tasks(), method, *make_batch())
    assert result.problem is None
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad.norm() > 0 for t in TASKS for p in model.task_parameters(t))


@pytest.mark.parametrize("level", LEVELS)
def test_a_frozen_layer_stays_out(level):
    model, method = make_model(), Mixing(TASKS, level)
    model.backbone.conv.requires_grad_(False)
    model.head("a").map.requires_grad_(False)
    check_names = {"backbone.conv.weight", "backbone.conv.bias", "head_a.map.weight", "head_a.map.bias"}
    step(model, make_tasks(), method, *make_batch())
    assert {n for n, p in model.named_parameters() if p.grad is None} == check_names


# --------------------------------------------------------------------------------------- cost and state


@pytest.mark.parametrize(("level", "of_backbone"), [("loss", 1), ("feature", 1), ("parameter", 3)])
def test_heads_are_passed_once(level, of_backbone):
    model = make_model()
    step(model, make_tasks(), Mixing(TASKS, level), *make_batch())
    for task in TASKS:
        assert (model.head(task).forwards, model.head(task).backwards) == (1, 1)
    assert (model.backbone.forwards, model.backbone.backwards) == (1, of_backbone)


@pytest.mark.parametrize("level", LEVELS)
def test_batch_statistics_move_once_a_step(level):
    model, plain = make_model(), make_model()
    image, targets = make_batch()
    for _ in range(2):
        step(model, make_tasks(), Mixing(TASKS, level), image, targets)
        plain(image)
    assert model.backbone.norm.num_batches_tracked == 2
    for found, expected in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(found, expected)


def test_gradients_of_the_step_before_are_gone():
    model, method = make_model(), build(["method=imtl"])
    step(model, make_tasks(), method, *make_batch())
    once = [p.grad.clone() for p in [*model.parameters(), *method.parameters()]]
    step(model, make_tasks(), method, *make_batch())
    again = [p.grad for p in [*model.parameters(), *method.parameters()]]
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_losses_after_the_step_leave_no_trace():
    model, tasks = make_model(), make_tasks()
    image, targets = make_batch(("b",))
    before = step(model, tasks, build(["method=equal"]), image, targets)
    buffers = [b.clone() for b in model.buffers()]
    assert close(losses_after(model, tasks, image, targets, before.tasks), before.losses)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    after = losses_after(model, tasks, image, targets, before.tasks)
    assert (after.dtype, after.requires_grad) == (torch.float64, False)
    assert after.sum() < before.losses.sum()
    assert all(torch.equal(b, now) for b, now in zip(buffers, model.buffers(), strict=True))


# -------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(("dtype", "autocast", "tolerance"), [
    (torch.float32, None, 1e-4),
    (torch.float32, torch.bfloat16, 0.1),
])  # fmt: skip
@pytest.mark.parametrize("overrides", METHODS, ids=lambda o: " ".join(o).replace("method", ""))
def test_lower_precision_is_close_to_float64(overrides, dtype, autocast, tolerance):
    exact, model = make_model(), make_model(dtype=dtype)
    reference = step(exact, make_tasks(), build(overrides), *make_batch())
    result = step(model, make_tasks(), build(overrides), *make_batch(dtype=dtype), autocast=autocast)
    assert result.weights.dtype == result.losses.dtype == torch.float64
    assert close(result.losses, reference.losses, tolerance)
    assert close(result.weights, reference.weights, tolerance)
    for p, q in zip(model.parameters(), exact.parameters(), strict=True):
        assert p.grad.dtype == dtype
        assert (p.grad - q.grad).norm() <= tolerance * reference.gradient_norm


# ------------------------------------------------------------- in pieces, at a layer, of a fixed sum


class Plain(MultiDecoder):
    """The same network without what looks at several images at once or draws numbers."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.backbone.norm = nn.Identity()


class PlainBranching(Branching):
    def __init__(self):
        super().__init__()
        self.trunk.norm = nn.Identity()


IN_PIECES = [
    *itertools.product([Plain], ["loss", "feature", "layer", "parameter"], [Mixing, Signs]),
    *itertools.product([PlainBranching], ["loss", "parameter"], [Mixing, Signs]),
    (PlainBranching, "layer", Mixing),  # gradients to combine are not at hand there
]


@pytest.mark.parametrize("absent", [(), ("b",)])
@pytest.mark.parametrize("pieces", [2, 3, 6])
@pytest.mark.parametrize(("kind", "level", "method_kind"), IN_PIECES)
def test_pieces_of_a_batch_give_what_the_batch_gives(kind, level, method_kind, pieces, absent):
    whole, parts = make_model(kind), make_model(kind)
    touches = "everything" if level == "layer" else "shared"
    method, other = method_kind(TASKS, level, touches), method_kind(TASKS, level, touches)
    other.load_state_dict(method.state_dict())
    image, targets = make_batch(absent)
    first = step(whole, make_tasks(), method, image, targets)
    second = step(parts, make_tasks(), other, image, targets, micro_batches=pieces)
    assert first.problem is second.problem is None
    assert close(second.losses, first.losses)
    assert close(second.weights, first.weights)
    assert close(second.gramian, first.gramian)
    for p, q in zip(
        [*parts.parameters(), *other.parameters()], [*whole.parameters(), *method.parameters()], strict=True
    ):
        assert close(p.grad, q.grad, 1e-11)
    after = losses_after(whole, make_tasks(), image, targets, first.tasks)
    assert close(losses_after(whole, make_tasks(), image, targets, first.tasks, micro_batches=pieces), after)


@pytest.mark.parametrize("level", ["loss", "feature", "layer", "parameter"])
def test_batch_statistics_move_once_for_each_piece(level):
    model = make_model()
    step(model, make_tasks(), Mixing(TASKS, level, "everything"), *make_batch(), micro_batches=3)
    assert model.backbone.norm.num_batches_tracked == 3


def test_pieces_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"micro_batches=4: it does not divide the 6 images"):
        step(make_model(), make_tasks(), build(["method=equal"]), *make_batch(), micro_batches=4)


@pytest.mark.parametrize("kind", [MultiDecoder, Branching])
def test_the_layer_level_sees_the_gramian_of_the_last_shared_layer(kind):
    class AtLayer(Listening):
        levels = ("layer",)
        touches = "everything"

    model, image_and_targets = make_model(kind), make_batch()
    layer = model.last_shared_layer()
    assert {id(p) for p in layer} <= {id(p) for p in model.shared_parameters()}
    reference = step(copy.deepcopy(model), make_tasks(), Listening(TASKS, "parameter"), *image_and_targets)
    method = AtLayer(TASKS)
    found = step(model, make_tasks(), method, *image_and_targets)
    plain = make_model(kind)
    losses = []
    for task in TASKS:
        features = plain.encode(image_and_targets[0])
        prediction = plain.decode(task, features, (4, 4))
        valid = ~image_and_targets[1][task].isnan()
        losses.append((prediction - image_and_targets[1][task])[valid].square().mean())
    inputs = plain.last_shared_layer()
    rows = [torch.autograd.grad(l, inputs, retain_graph=True, materialize_grads=True) for l in losses]
    rows = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    assert close(found.gramian, rows @ rows.T, 1e-9)
    assert not close(found.gramian, reference.gramian, 1e-3)
    total = sum((k + 1) * loss for k, loss in enumerate(losses))  # Listening's weights are 1, 2, 3
    for p, g in zip(model.parameters(), torch.autograd.grad(total, list(plain.parameters())), strict=True):
        assert close(p.grad, g, 1e-9)


@pytest.mark.parametrize("kind", [MultiDecoder, Branching])
def test_the_layer_level_scales_the_heads_as_the_method_says(kind):
    class AtLayer(Listening):
        levels = ("layer",)

    model, plain = make_model(kind), make_model(kind)
    image, targets = make_batch()
    step(model, make_tasks(), AtLayer(TASKS), image, targets)
    losses = []
    for task in TASKS:
        valid = ~targets[task].isnan()
        prediction = plain.decode(task, plain.encode(image), (4, 4))
        losses.append((prediction - targets[task])[valid].square().mean())
    weighted, summed = sum((k + 1) * loss for k, loss in enumerate(losses)), sum(losses)
    shared = {id(p) for p in plain.shared_parameters()}
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        total = weighted if id(q) in shared else summed
        assert close(p.grad, torch.autograd.grad(total, q, retain_graph=True)[0], 1e-9)


@pytest.mark.parametrize("overrides", [["method=imtl"], ["method=mgda"], ["method=equal", "method.reduction=mean"]])
def test_weights_of_a_fixed_sum(overrides):
    plain, fixed = make_model(), make_model()
    method, rescaled = build(overrides), build([*overrides, "method.scale=sum_T"])
    first, second = (step(m, make_tasks(), w, *make_batch()) for m, w in ((plain, method), (fixed, rescaled)))
    assert second.weights.sum().item() == pytest.approx(3, rel=1e-12)
    factor = 3 / first.weights.sum()
    assert close(second.weights, factor * first.weights)
    assert close(fixed.backbone.conv.weight.grad, factor * plain.backbone.conv.weight.grad)


def test_a_sum_that_is_not_positive_is_left_and_counted():
    class Uphill(Listening):
        def weights(self, losses, gramian, tasks, rng):
            return -torch.ones_like(losses)

    method = Uphill(TASKS)
    method.scale_rule = "sum_T"
    result = step(make_model(), make_tasks(), method, *make_batch())
    assert result.weights.tolist() == [-1.0] * 3
    assert result.notes == ("weights of a sum that is not positive are not rescaled",)


def test_a_zero_gradient_is_counted():
    class Zero(Loss):
        counts = Squared.counts

        def __call__(self, prediction, target, counts):
            return 0 * prediction.sum() + 1.0

    result = step(make_model(), make_tasks(b=Zero()), build(["method=mgda"]), *make_batch())
    assert result.notes == ("a zero gradient: b",)
    assert step(make_model(), make_tasks(), build(["method=mgda"]), *make_batch()).notes == ()


@pytest.mark.parametrize("level", ["feature", "parameter"])
def test_draws_for_coordinates_come_from_the_steps_generator(level):
    class Masked(Mixing):
        def combine(self, weights, jacobian, tasks, uniform):
            self.drawn = uniform()
            assert self.drawn.shape == jacobian[0].shape
            return (weights.to(jacobian) @ jacobian) * (self.drawn < 0.5)

    drawn = []
    for pieces in (1, 3):
        method = Masked(TASKS, level)
        rng = torch.Generator().manual_seed(11)
        step(make_model(Plain), make_tasks(), method, *make_batch(), rng=rng, micro_batches=pieces)
        drawn.append(method.drawn)
    assert torch.equal(*drawn)
    assert 0 <= drawn[0].min() < 0.1
    assert 0.9 < drawn[0].max() < 1


# ------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize("what", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_not_finite_is_named_and_leaves_no_gradient(level, what):
    model, method = make_model(), Mixing(TASKS, level)
    tasks = make_tasks(b=Faulty(what))
    if what == "gradient":  # the loss is 0, whose logarithm the transform would not like
        method = {"loss": build(["method=equal"])}.get(level) or Listening(TASKS, level)
    result = step(model, tasks, method, *make_batch())
    said = "the gradient of b is not finite" if what == "gradient" else f"the loss of b is {what}"
    assert result.problem == said
    assert all(p.grad is None for p in [*model.parameters(), *method.parameters()])
    assert not hasattr(method, "seen")


@pytest.mark.parametrize("level", ["feature", "parameter"])
def test_weights_that_are_not_finite_are_the_methods_problem(level):
    class Broken(Listening):
        def weights(self, losses, gramian, tasks, rng):
            return torch.tensor([1.0, math.inf, 1.0], dtype=torch.float64)

    model = make_model()
    result = step(model, make_tasks(), Broken(TASKS, level), *make_batch())
    assert result.problem == "Broken gives b the weight inf"
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("level", LEVELS)
def test_a_transform_that_is_not_finite_is_the_methods_problem(level):
    class Exploding(Mixing):
        def transform(self, losses, tasks, rng):
            return losses * torch.tensor([1.0, 1e308, 1.0]).double() * 1e308

    result = step(make_model(), make_tasks(), Exploding(TASKS, level), *make_batch())
    assert result.problem.startswith("Exploding gives ")


@pytest.mark.parametrize("level", LEVELS)
def test_learned_numbers_without_a_finite_gradient_are_the_methods_problem(level):
    class Root(Mixing):
        def transform(self, losses, tasks, rng):
            return losses + (0 * self.shift).sqrt()

    result = step(make_model(), make_tasks(), Root(TASKS, level), *make_batch())
    assert result.problem == "the gradient of what Root learns is not finite"
