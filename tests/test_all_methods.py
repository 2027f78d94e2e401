"""What holds for every option of conf/method, whatever it is; a new one is found by its yaml."""

import io
import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from drill import Answer, Drill, build
from gramians import FOUR, FOUR_LOSSES, FULL, JACOBIANS, names
from mtlbench import config
from mtlbench.docstrings import facts, first_sentence
from mtlbench.methods.hybrid import Hybrid
from mtlbench.weighting import Weighting, overrides

DEFAULTS = {name: (name,) for name in config.options("method")}
VARIANTS = {
    # options that make another method of one, besides its defaults
    "equal mean": ("equal", "method.reduction=mean"),
    "uncertainty laplace": ("uncertainty", "method.form=laplace"),
    "uncertainty softmax": ("uncertainty", "method.form=softmax"),
    "uncertainty sigma": ("uncertainty", "method.parametrisation=sigma"),
    "uncertainty_optimal gaussian": ("uncertainty_optimal", "method.form=gaussian"),
    "rlw uniform": ("rlw", "method.distribution=uniform"),
    "rlw random_normal": ("rlw", "method.distribution=random_normal"),
    "rlw dirichlet": ("rlw", "method.distribution=dirichlet"),
    "rlw bernoulli": ("rlw", "method.distribution=bernoulli"),
    "rlw constrained": ("rlw", "method.distribution=constrained_bernoulli"),
    "dwa cold": ("dwa", "method.temperature=0.5"),
    "dtp focal": ("dtp", "method.gamma=3.0", "method.alpha=1.0"),
    "dtp exponential": ("dtp", "method.regression=exponential"),
    "lsb difficult": ("lsb", "method.beta=1.0"),
    "imtl_l base": ("imtl_l", "method.a=2.0", "method.b=0.7"),
    "mgda frank_wolfe": ("mgda", "method.solver=frank_wolfe", "method.iterations=5"),
    "mgda l2": ("mgda", "method.normalize=l2"),
    "mgda loss": ("mgda", "method.normalize=loss"),
    "mgda everything": ("mgda", "method.touches=everything"),
    "pcgrad shared": ("pcgrad", "method.order=shared"),
    "pcgrad code": ("pcgrad", "method.order=code"),
    "pcgrad mean": ("pcgrad", "method.reduction=mean"),
    "cagrad wide": ("cagrad", "method.c=1.5"),
    "nash_mtl every": ("nash_mtl", "method.update_weights_every=5"),
    "nash_mtl clipped": ("nash_mtl", "method.max_norm=1.0", "method.touches=everything"),
    "aligned_mtl rmse": ("aligned_mtl", "method.eigenvalue=rmse"),
    "hybrid pcgrad": ("hybrid", "method@method.gradient=pcgrad"),
    "hybrid imtl": ("hybrid", "method@method.loss=imtl_l", "method@method.gradient=imtl_g"),
}
CASES = DEFAULTS | VARIANTS
all_methods = pytest.mark.parametrize("name", DEFAULTS)
all_cases = pytest.mark.parametrize("name", CASES)


def make(name: str, tasks: Sequence[str]) -> Weighting:
    return build(*CASES[name], tasks=tasks)


def batches(count: int, tasks: int, seed: int = 2, width: int = 6) -> list[tuple[Tensor, Tensor]]:
    """(losses [T], gradients [T, D]) of some steps, all different."""
    rng = torch.Generator().manual_seed(seed)
    return [
        (0.5 + 5 * torch.rand(tasks, generator=rng).double(), torch.randn(tasks, width, generator=rng).double())
        for _ in range(count)
    ]


def lived(
    method: Weighting,
    order: Sequence[int],
    present: Sequence[str] | None = None,
    epochs: int = 3,
    scales: Tensor | None = None,
) -> tuple[Drill, list[Answer]]:
    """A method after some epochs of two steps; `order`: which of four tasks stand at its places, `scales` [4]: what
    multiplies their losses (metrics are what they are)."""
    k = torch.ones(4).double() if scales is None else scales
    drill = Drill(method)
    answers = []
    for epoch in range(epochs):
        some = batches(2, 4, seed=epoch)
        answers += [drill.take((k * L)[order], (k[:, None] * jacobian)[order], present) for L, jacobian in some]
        means = sum(losses for losses, _ in some) / 2
        drill.end_epoch((k * means)[order], present, means[order])
    return drill, answers


def agree(a: Answer, b: Answer, order: Sequence[int] | None = None, rtol: float = 1e-7) -> None:
    """The same answer to rounding; b's tasks are a's in another order."""
    assert a.problem is None
    assert b.problem is None
    order = range(len(a.weights)) if order is None else order
    scale = a.weights.abs().max().item() + 1e-300
    torch.testing.assert_close(b.weights, a.weights[order], rtol=rtol, atol=rtol * scale)
    torch.testing.assert_close(b.heads, a.heads[order], rtol=rtol, atol=rtol * a.heads.abs().max().item())
    torch.testing.assert_close(b.gradient, a.gradient, rtol=rtol, atol=rtol * a.gradient.norm().item())


def effective(answer: Answer, jacobian: Tensor) -> Tensor:
    """The weights [T] of the task gradients that give the combined gradient; unique if they are independent."""
    return torch.linalg.lstsq(jacobian.T, answer.gradient[:, None]).solution[:, 0]


# ---------------------------------------------------------------------------------------------- told apart

SAME_BY_THEORY = {
    frozenset({"equal", "static"}): "static without weights",
    frozenset({"log", "uncertainty_optimal"}): "the gradients of log L and of L / sg(L) are the same; M is not",
    frozenset({"imtl", "hybrid imtl"}): "IMTL is IMTL-L, then IMTL-G (Liu et al. 2021, Section 3.3)",
}


def test_no_two_methods_give_the_same_weights_to_four_tasks_in_conflict():
    """After some epochs, so that what begins with equal weights and learns has learned."""
    found = {}
    for name in CASES:
        drill, _ = lived(make(name, names(4)), range(4))
        drill.steps = 23  # with these draws PCGrad's orders differ, one for each task, one for all, and as listed
        answer = drill.take(FOUR_LOSSES, FOUR)
        assert answer.problem is None
        found[name] = torch.cat([effective(answer, FOUR), answer.heads])
    assert 1 < (found["mgda"][:4] > 1e-9).sum() < 4  # the minimum-norm point lies on a face
    same = {
        frozenset(pair)
        for pair in itertools.combinations(found, 2)
        if (found[pair[0]] - found[pair[1]]).abs().max() < 1e-3 * found[pair[0]].abs().max()
    }
    assert same == set(SAME_BY_THEORY), [sorted(pair) for pair in same ^ set(SAME_BY_THEORY)]


# --------------------------------------------------------------------------------- tasks in another order


DRAWN_FOR_EACH_TASK = {"rlw"}
"""Weights drawn independently of the tasks: permuting the tasks leaves the draws at their places."""

AS_LISTED = {"pcgrad code"}
"""By their docstrings these take the tasks in the order in which they are listed."""


@pytest.mark.parametrize("name", [name for name in CASES if name not in AS_LISTED])
def test_the_order_of_tasks_does_not_matter(name: str, monkeypatch):
    """Tasks permuted, weights permuted: the whole life of a method. A random order of the tasks is held fixed; weights
    drawn for each task stay at their places."""
    order = [2, 0, 3, 1]
    plain, moved = make(name, names(4)), make(name, [names(4)[i] for i in order])
    by_place = name.split()[0] in DRAWN_FOR_EACH_TASK
    last = []
    for method, places in ((plain, [0, 1, 2, 3]), (moved, order)):
        where = [places.index(i) for i in range(4)]  # the listed order of the first, seen from this one
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randperm", lambda count, where=where, **_: torch.tensor(where))
            drill, _ = lived(method, places)
            last.append(drill.take(FOUR_LOSSES[places], FOUR[places]))
    if by_place:
        assert torch.equal(last[0].weights, last[1].weights)
    else:
        agree(last[0], last[1], order)


# ------------------------------------------------------------------------------------------- absent tasks


@all_cases
def test_absent_tasks_leave_the_answer_of_the_others(name: str):
    """A life in which two of four tasks never have a label is the life of the other two alone, to the bit."""
    some, at = ["task1", "task3"], [1, 3]
    one, first = lived(make(name, names(4)), at, some)
    other, second = lived(make(name, some), at)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.weights, b.weights)
        assert torch.equal(a.gradient, b.gradient)
        assert torch.equal(a.heads, b.heads)
    a, b = one.take(FOUR_LOSSES[at], FOUR[at], some), other.take(FOUR_LOSSES[at], FOUR[at])
    assert torch.equal(a.weights, b.weights)


@all_cases
def test_a_task_may_come_and_go(name: str):
    drill, _ = lived(make(name, names(4)), range(4))
    for k, present in enumerate([[0], [1, 3], [0, 1, 2, 3], [2], [0, 3], [0, 1, 2, 3]]):
        losses, jacobian = batches(1, 4, seed=90 + k)[0]
        answer = drill.take(losses[present], jacobian[present], [names(4)[i] for i in present])
        assert answer.problem is None
        assert answer.weights.isfinite().all()
        if k % 2:
            drill.end_epoch(losses[present], [names(4)[i] for i in present])
    drill.end_epoch(FOUR_LOSSES)


# ----------------------------------------------------------------------------------------------- one task


@all_cases
def test_one_task_has_its_plain_gradient_or_the_multiple_that_the_docstring_states(name: str):
    method = make(name, ["a"])
    said = facts(type(method))["one"]
    loss, row = torch.tensor([3.0]).double(), FOUR[:1]
    drill, _ = lived(method, [0])
    for answer in (Drill(make(name, ["a"])).take(loss, row), drill.take(loss, row)):
        assert answer.problem is None
        assert torch.allclose(answer.gradient, answer.weights * row[0], rtol=1e-12)
        if "plain gradient" in said and name not in MULTIPLE:
            assert answer.weights.item() == pytest.approx(1, rel=1e-9), said
            assert answer.heads.item() == pytest.approx(1, rel=1e-9), said
        else:
            assert answer.weights.item() > 0, said
    if name in MULTIPLE:
        assert Drill(make(name, ["a"])).take(loss, row).weights.item() == pytest.approx(MULTIPLE[name], rel=1e-9)


MULTIPLE = {
    "uncertainty": 0.5,
    "uncertainty sigma": 0.5,
    "log": 1 / 3,
    "uncertainty_optimal": 1 / 3,
    "nash_mtl": 1 / FOUR[0].norm().item(),
    "fairgrad": FOUR[0].norm().item() ** (-4 / 3),
    "cagrad": 1.4,
    "imtl_l base": 0.7,
    "hybrid": 0.5,
    "hybrid pcgrad": 0.5,
}
"""What multiplies a single task's gradient at the start, at a loss of 3 and the first gradient of FOUR."""

PLAIN = ("equal", "gls", "dwa", "gradnorm", "mgda", "imtl_g", "pcgrad", "upgrad")
TIMES = ("log", "uncertainty", "imtl_l", "dtp", "nash_mtl", "fairgrad")


@all_methods
def test_docstrings_say_what_one_task_gets(name: str):
    said = facts(type(make(name, ["a"])))["one"]
    if name in PLAIN:
        assert "plain gradient" in said
    if name in TIMES:
        assert "times" in said or "/" in said


# ------------------------------------------------------------------------------------- degenerate gradients


@all_cases
def test_degenerate_gradients_give_finite_weights(name: str):
    for kind, jacobian in JACOBIANS.items():
        losses = torch.linspace(0.5, 3, len(jacobian)).double()
        drill = Drill(make(name, names(len(jacobian))))
        for _ in range(2 if drill.method.state_dict() else 1):  # the second step with what the first one left
            answer = drill.take(losses, jacobian)
            assert answer.problem is None, kind
            assert answer.weights.dtype == torch.float64
            assert answer.weights.shape == answer.heads.shape == losses.shape
            assert answer.weights.isfinite().all(), kind
            assert answer.gradient.isfinite().all(), kind


@all_methods
def test_gradients_in_float32_stay_finite(name: str):
    for kind, jacobian in JACOBIANS.items():
        answer = Drill(make(name, names(len(jacobian)))).take(torch.ones(len(jacobian)), jacobian.float())
        assert answer.problem is None, kind
        assert answer.weights.isfinite().all(), kind


@all_methods
def test_float32_gradients_give_nearly_the_same_step(name: str):
    tried = 0
    for kind, jacobian in FULL.items():
        units = jacobian / jacobian.norm(dim=1, keepdim=True)
        if torch.linalg.cond(units @ units.T) > 100:
            continue  # the problem itself is ill-conditioned
        tried += 1
        losses = torch.linspace(0.5, 3, len(units)).double()
        rough, exact = (Drill(make(name, names(len(units)))).take(losses.to(j), j) for j in (units.float(), units))
        assert (rough.gradient - exact.gradient).norm() <= 1e-3 * exact.gradient.norm(), kind
        assert (rough.heads - exact.heads).norm() <= 1e-3 * exact.heads.norm(), kind
    assert tried >= 8


# ----------------------------------------------------------------------------------------- what is touched


@all_cases
def test_heads_are_scaled_as_touches_says(name: str):
    """shared: by c = C' 1, the slope of the loss balance's sum; everything: by u, as the shared gradients are."""
    drill, _ = lived(make(name, names(4)), range(4))
    method = drill.method
    rng = torch.Generator().manual_seed(drill.steps)
    leaf = FOUR_LOSSES.clone().requires_grad_()
    twin = Drill(make(name, names(4)))
    twin.load(drill.state())
    transformed = twin.method.transform(leaf, method.tasks, rng).sum()
    slope = torch.autograd.grad(transformed, leaf)[0]
    answer = drill.take(FOUR_LOSSES, FOUR)
    by_loss = method.level == "loss" or method.touches == "shared"
    torch.testing.assert_close(answer.heads, slope if by_loss else answer.weights, rtol=1e-9, atol=1e-12)
    if not overrides(method, "combine"):
        torch.testing.assert_close(answer.gradient, answer.weights @ FOUR, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------------------- state


def after_a_checkpoint(typed: Sequence[str]) -> tuple[list[Answer], list[Answer], list[Answer]]:
    """Five steps after an epoch and a half: going on, from a saved and loaded state, and from a fresh object."""
    head, tail = batches(4, 4, seed=7), batches(5, 4, seed=8)

    def begin() -> Drill:
        return Drill(build(*typed, tasks=names(4)))

    def go(drill: Drill) -> list[Answer]:
        answers = []
        for k, (losses, jacobian) in enumerate(tail):
            answers.append(drill.take(losses, jacobian))
            if k in (1, 3):
                drill.end_epoch(losses)
        return answers

    drill = begin()
    for k, (losses, jacobian) in enumerate(head):
        drill.take(losses, jacobian)
        if k in (0, 2):
            drill.end_epoch(losses)
    file = io.BytesIO()
    torch.save(drill.state(), file)
    going_on = go(drill)
    file.seek(0)
    again, fresh = begin(), begin()
    again.load(torch.load(file, weights_only=True))
    fresh.steps = again.steps
    return going_on, go(again), go(fresh)


def assert_same_bits(one: Sequence[Answer], other: Sequence[Answer]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.problem is None
        for part in ("weights", "heads", "gradient"):
            assert torch.equal(getattr(a, part), getattr(b, part)), part


@all_cases
def test_state_survives_a_checkpoint(name: str):
    """Saved, read with weights_only, put into a fresh object: the next five steps are the same to the bit."""
    going_on, loaded, fresh = after_a_checkpoint(CASES[name])
    assert_same_bits(going_on, loaded)
    if make(name, names(4)).state_dict():  # without it the next steps would be others: the comparison can fail
        assert not all(torch.equal(a.weights, b.weights) for a, b in zip(going_on, fresh, strict=True))


def halves() -> tuple[list[str], list[str]]:
    """The options that a hybrid takes as its loss balance, and as its gradient balance."""
    built = {name: make(name, names(2)) for name in DEFAULTS}
    single = {name: method for name, method in built.items() if method.parts("transform") == (method,)}
    first = [n for n, m in single.items() if not overrides(m, "weights") and not overrides(m, "combine")]
    second = [n for n, m in single.items() if not overrides(m, "transform") and (n not in first)]
    return first, second


FIRST, SECOND = halves()
"""Every loss balance with one gradient balance, every gradient balance with one loss balance."""
PAIRS = sorted({(loss, "mgda") for loss in FIRST} | {("imtl_l", gradient) for gradient in SECOND})


@pytest.mark.parametrize(("loss", "gradient"), PAIRS)
def test_the_state_of_compositions_survives_a_checkpoint(loss: str, gradient: str):
    typed = ("hybrid", f"method@method.loss={loss}", f"method@method.gradient={gradient}")
    going_on, loaded, _ = after_a_checkpoint(typed)
    assert_same_bits(going_on, loaded)


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name not in FIRST])
def test_a_gradient_balance_is_no_loss_balance(name: str):
    with pytest.raises(ValueError, match=r"method\.loss: \w+ balances gradients.*method@method\.gradient="):
        build("hybrid", f"method@method.loss={name}")


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name not in SECOND])
def test_a_loss_balance_is_no_gradient_balance(name: str):
    with pytest.raises(ValueError, match=r"method\.gradient: \w+ balances losses.*method@method\.loss="):
        build("hybrid", f"method@method.gradient={name}")


@pytest.mark.parametrize(("loss", "gradient"), PAIRS)
def test_a_composition_hands_on_what_its_halves_are(loss: str, gradient: str):
    both = build("hybrid", f"method@method.loss={loss}", f"method@method.gradient={gradient}")
    first, second = make(loss, "abc"), make(gradient, "abc")
    assert (type(both.loss), type(both.gradient)) == (type(first), type(second))
    assert (both.level, both.touches) == (second.level, second.touches)
    for hook in ("transform", "weights", "combine", "after_step"):
        assert overrides(both, hook) == (overrides(first, hook) or overrides(second, hook)), hook
    groups = [both.parameter_groups(), [*first.parameter_groups(), *second.parameter_groups()]]
    assert len(groups[0]) == len(groups[1])
    for one, other in zip(*groups, strict=True):
        assert one.get("lr") == other.get("lr")
        assert one["weight_decay"] == 0
        assert [p.shape for p in one["params"]] == [p.shape for p in other["params"]]


@pytest.mark.parametrize(("loss", "gradient"), list(itertools.product(FIRST, SECOND)))
def test_a_composition_is_one_after_the_other(loss: str, gradient: str):
    """u = c w(c L, c g c): the gradient balance sees what the loss balance made, and adds to what it scales."""
    parts = {"loss": make(loss, names(4)), "gradient": make(gradient, names(4))}
    both = Drill(Hybrid(names(4), **parts)).take(FOUR_LOSSES, FOUR)
    first = build(loss, tasks=names(4)).double()
    leaf = FOUR_LOSSES.clone().requires_grad_()
    rng = torch.Generator().manual_seed(0)
    balanced = first.transform(leaf, first.tasks, rng)
    slope = torch.autograd.functional.jacobian(
        lambda x: first.transform(x, first.tasks, torch.Generator().manual_seed(0)), FOUR_LOSSES
    )
    second = build(gradient, tasks=names(4))
    alone = Drill(second).take(balanced.detach(), slope @ FOUR, rng=rng)  # which the loss balance has drawn from
    torch.testing.assert_close(both.gradient, alone.gradient, rtol=1e-8, atol=1e-8 * alone.gradient.norm().item())
    torch.testing.assert_close(both.weights, slope.T @ alone.weights, rtol=1e-8, atol=1e-10)
    heads = slope.sum(0) if second.touches == "shared" else both.weights
    torch.testing.assert_close(both.heads, heads, rtol=1e-9, atol=1e-12)


# --------------------------------------------------------------------------------------------- not finite


@all_cases
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_named_problem_and_leaves_no_trace(name: str, value: float):
    (drill, _), (untouched, _) = (lived(make(name, names(4)), range(4)) for _ in range(2))
    bad = FOUR_LOSSES.clone()
    bad[2] = value
    answer = drill.take(bad, FOUR)
    assert answer.problem == f"the loss of task2 is {value}"
    drill.steps = untouched.steps
    assert_same_bits([drill.take(FOUR_LOSSES, FOUR)], [untouched.take(FOUR_LOSSES, FOUR)])


@all_cases
def test_a_gradient_that_is_not_finite_is_a_named_problem(name: str):
    drill, _ = lived(make(name, names(4)), range(4))
    bad = FOUR.clone()
    bad[1, 2] = math.inf
    problem = drill.take(FOUR_LOSSES, bad).problem
    if drill.method.level == "loss":  # the tasks' own gradients are not known: what is seen is their sum
        assert problem == "the gradient of task0, task1, task2, task3 is not finite"
    else:
        assert problem == "the gradient of task1 is not finite"


@all_methods
def test_losses_that_are_not_finite_after_the_update_are_no_silent_weights(name: str):
    """The update itself may have diverged: then the next step says so, or its weights are finite."""
    method = make(name, names(4))
    if not overrides(method, "after_step"):
        return
    drill, _ = lived(method, range(4))
    drill.take(FOUR_LOSSES, FOUR, after=torch.tensor([1.0, math.nan, 1.0, math.inf]).double())
    answer = drill.take(FOUR_LOSSES, FOUR)
    assert answer.problem or answer.weights.isfinite().all()


# ------------------------------------------------------------------------------------------------- scales

K = torch.tensor([1.0, 30.0, 0.05, 4.0]).double()
CLAIMS = {
    # what a docstring says of the losses' scales, and what then stays when they, and with them the gradients, are
    # multiplied by positive factors from the first step on; what holds at rest alone is tested with the method itself
    "none but for alpha = 1": "not the direction",
    "none": "not the direction",
    "the whole result": "result",
    "the result": "result",
    "the direction": "direction",
    "of the direction at the balance where": None,
    "of the direction": "direction",
    "of the weights": "weights",
    "at the best sigma": None,
    "where s is at rest": None,
    "what the loss balance makes alike": None,
}


def claim(name: str) -> str | None:
    said = facts(type(make(name, names(4))))["scales"]
    begin = next((words for words in CLAIMS if said.startswith(words)), None)
    assert begin is not None, f"{name}: {said} It begins with none of {', '.join(CLAIMS)}."
    return CLAIMS[begin]


@all_methods
def test_what_the_scales_of_the_losses_do_not_change(name: str):
    stays = claim(name)
    found = []
    for k in (K / K, K):
        drill, _ = lived(make(name, names(4)), range(4), scales=k)
        found.append(drill.take(k * FOUR_LOSSES, k[:, None] * FOUR))
    one, other = (answer.gradient for answer in found)
    moved = (one / one.norm() - other / other.norm()).norm().item()
    opposite = (one / one.norm() + other / other.norm()).norm().item()  # IMTL-G: Theorem 2 says nothing of the sign
    if stays == "not the direction":
        assert moved > 0.05
    if stays == "direction":
        assert min(moved, opposite) <= 1e-6
        assert (one.norm() / other.norm()).log().abs() > 1e-3
    if stays == "result":
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    if stays == "weights":
        torch.testing.assert_close(found[0].weights, found[1].weights, rtol=1e-9, atol=1e-12)
        assert moved > 0.05


SCALES = {
    "imtl_g": "direction",
    "imtl": "direction",
    "config": "direction",
    "nash_mtl": "result",
    "log": "result",
    "mgda": "not the direction",
    "aligned_mtl": "not the direction",
    "cagrad": "not the direction",
}


@pytest.mark.parametrize("name", SCALES)
def test_docstrings_claim_what_the_papers_prove(name: str):
    assert claim(name) == SCALES[name]


def test_fairgrad_with_alpha_1_has_nash_mtls_invariance():
    found = [
        Drill(build("fairgrad", "method.alpha=1.0", tasks=names(4))).take(k * FOUR_LOSSES, k[:, None] * FOUR).gradient
        for k in (K / K, K)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------------------------------- searching

entries = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-4, 1e4, -1e4, 1 / 3])
gradients = st.tuples(st.integers(1, 6), st.integers(1, 7)).flatmap(
    lambda shape: st.lists(
        st.lists(entries, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@all_methods
def test_searching_for_gradients_that_break_a_method(name: str):
    @settings(deadline=None, derandomize=True, max_examples=60, database=None)
    @given(gradients, st.integers(0, 1000))
    def search(rows: list[list[float]], seed: int) -> None:
        jacobian = torch.tensor(rows).double()
        losses = 0.01 + 10 * torch.rand(len(rows), generator=torch.Generator().manual_seed(seed)).double()
        drill = Drill(make(name, names(len(rows))))
        drill.steps = seed
        answer = drill.take(losses, jacobian)
        assert answer.problem is None
        assert answer.weights.isfinite().all()
        assert answer.gradient.isfinite().all()

    search()


well_conditioned = st.tuples(st.integers(2, 6), st.integers(0, 10_000), st.floats(0, 3))


def random_gradients(count: int, seed: int, decades: float) -> tuple[Tensor, Tensor]:
    """Losses and independent gradients of lengths up to so many powers of ten apart."""
    rng = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, count + 3, generator=rng).double()
    lengths = 10 ** (decades * torch.rand(count, 1, generator=rng).double())
    return 0.1 + 5 * torch.rand(count, generator=rng).double(), lengths * jacobian


def no_task_gets_worse(gradient: Tensor, jacobian: Tensor, weights: Tensor) -> Tensor:
    """By how much a first-order step raises the loss that it raises most, relative to the lengths."""
    return -(jacobian @ gradient) / (jacobian.norm(dim=1) * (weights.abs() * jacobian.norm(dim=1)).sum())


DESCENT = ("mgda", "mgda_relaxed", "upgrad", "dualproj", "config", "nash_mtl", "fairgrad")
"""Their papers promise that to first order no loss rises, whatever the gradients."""


@pytest.mark.parametrize("name", DESCENT)
def test_searching_for_gradients_with_which_a_loss_rises(name: str):
    @settings(deadline=None, derandomize=True, max_examples=60, database=None)
    @given(well_conditioned)
    def search(drawn: tuple[int, int, float]) -> None:
        losses, jacobian = random_gradients(*drawn)
        answer = Drill(make(name, names(len(losses)))).take(losses, jacobian)
        assert no_task_gets_worse(answer.gradient, jacobian, answer.weights).max() <= 1e-9

    search()


@all_methods
def test_searching_for_gradients_with_another_sum_of_weights_than_the_docstrings(name: str):
    """Where it states 1 or T, without a condition."""
    said = first_sentence(facts(type(make(name, names(2))))["sum"])
    if said not in ("1", "T"):
        return

    @settings(deadline=None, derandomize=True, max_examples=40, database=None)
    @given(well_conditioned)
    def search(drawn: tuple[int, int, float]) -> None:
        losses, jacobian = random_gradients(*drawn)
        drill = Drill(make(name, names(len(losses))))
        for _ in range(2):
            total = drill.take(losses, jacobian).weights.sum().item()
            assert total == pytest.approx(1 if said == "1" else len(losses), rel=1e-6)
            drill.end_epoch(losses)

    search()
