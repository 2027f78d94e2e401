"""The streamed Gramian against the whole Jacobian's, on graphs of every shape, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from mtlbench import config
from mtlbench.losses import L1
from mtlbench.methods.graddrop import GradDrop
from mtlbench.methods.imtl_g import IMTLG
from mtlbench.model import TrunkAndHeads
from mtlbench.parallel import Ranks
from mtlbench.step import step
from mtlbench.streaming import blocks_of, streamed_gramian
from mtlbench.task import Task

TASKS = ("a", "b", "c")


class Graph(nn.Module):
    """Layers in a row, each reading the sum of some earlier tensors; several are given. A layer may be used twice."""

    def __init__(self, reads: list[list[int]], layers: list[int], given: list[int]):
        super().__init__()
        torch.manual_seed(0)
        self.reads, self.layers, self.given = reads, layers, given
        self.linear = nn.ModuleList(nn.Linear(3, 3).double() for _ in range(max(layers) + 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tensors = [x]
        for reads, layer in zip(self.reads, self.layers, strict=True):
            tensors.append(torch.tanh(self.linear[layer](sum(tensors[i] for i in reads))))
        return tuple(tensors[i] for i in self.given)


@st.composite
def graphs(draw) -> Graph:
    count = draw(st.integers(1, 7))
    reads = [draw(st.lists(st.integers(0, i), min_size=1, max_size=3, unique=True)) for i in range(count)]
    layers = draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    given = draw(st.lists(st.integers(1, count), min_size=1, max_size=3, unique=True))
    return Graph(reads, layers, given)


def gramian_of_whole(features: tuple[Tensor, ...], rows: list[Tensor], parameters: list[nn.Parameter]) -> Tensor:
    jacobian = []
    for t in range(len(rows[0])):
        gradients = torch.autograd.grad(
            features,
            parameters,
            [r[t].view_as(f) for f, r in zip(features, rows, strict=True)],
            retain_graph=True,
            materialize_grads=True,
        )
        jacobian.append(torch.cat([g.flatten() for g in gradients]))
    matrix = torch.stack(jacobian)
    return matrix @ matrix.T


@settings(deadline=None, derandomize=True, max_examples=150)
@given(graphs(), st.integers(1, 4))
def test_any_graph_gives_the_gramian_of_the_whole_jacobian(graph: Graph, count: int):
    features = graph(torch.randn(5, 3, dtype=torch.float64))
    rows = [torch.randn(count, f.numel(), dtype=torch.float64) for f in features]
    parameters = list(graph.parameters())
    found = streamed_gramian(features, rows, parameters, Ranks())
    expected = gramian_of_whole(features, rows, parameters)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(graphs())
def test_each_parameter_that_is_reached_is_in_one_block(graph: Graph):
    features = graph(torch.randn(5, 3, dtype=torch.float64))
    parameters = list(graph.parameters())
    reached = torch.autograd.grad(sum(f.sum() for f in features), parameters, retain_graph=True, allow_unused=True)
    edges = [get_gradient_edge(f) for f in features]
    blocks = list(blocks_of([(edge.node, edge.output_nr) for edge in edges], parameters))
    places = sorted(i for block in blocks for i in block.parameters)
    assert places == [i for i, gradient in enumerate(reached) if gradient is not None]


def test_a_residual_network_is_cut_into_blocks_of_its_largest_layer():
    backbone = config.build(config.load(["backbone=resnet18"], name="bench").backbone)
    parameters = list(backbone.parameters())
    features = backbone(torch.randn(2, 3, 32, 32))
    edges = [get_gradient_edge(f) for f in features]
    sizes = [
        sum(parameters[i].numel() for i in block.parameters)
        for block in blocks_of([(edge.node, edge.output_nr) for edge in edges], parameters)
    ]
    assert sum(sizes) == sum(p.numel() for p in parameters)
    assert max(sizes) < 2.1 * max(p.numel() for p in parameters)  # of 11 million, the 4.7 of a unit of two such layers


def twin(jacobian: str, trunk: nn.Module, scale_rule: str = "paper"):
    torch.manual_seed(1)
    model = TrunkAndHeads(trunk, {t: nn.Linear(4, 2) for t in TASKS}).double()
    method = IMTLG(list(TASKS), level="parameter")
    method.set_rules(scale_rule, jacobian)
    torch.manual_seed(2)
    image = torch.randn(6, 5, dtype=torch.float64)
    targets = {t: torch.randn(6, 2, dtype=torch.float64) for t in TASKS}
    tasks = {t: Task(t, 2, L1(), []) for t in TASKS}
    result = step(model, tasks, method, image, targets)
    return result, [p.grad for p in model.parameters()]


@pytest.mark.parametrize("rule", ["paper", "sum_T"])
def test_a_step_equals_that_of_the_whole_jacobian(rule: str):
    def trunk() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4), nn.Tanh())

    one, ones = twin("whole", trunk(), rule)
    two, twos = twin("streamed", trunk(), rule)
    torch.testing.assert_close(two.gramian, one.gramian, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(two.weights, one.weights, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(twos, ones, rtol=1e-9, atol=1e-12)


def test_a_frozen_trunk_has_a_gramian_of_zeros():
    frozen = nn.Linear(5, 4).requires_grad_(False)
    whole, _ = twin("whole", frozen)
    streamed, _ = twin("streamed", frozen)
    assert whole.gramian.tolist() == streamed.gramian.tolist() == [[0.0] * 3] * 3


@pytest.mark.parametrize(
    ("method", "rules", "words"),
    [
        (IMTLG(TASKS, level="parameter"), ("paper", "blocks"), "expected whole or streamed"),
        (IMTLG(TASKS, level="feature"), ("paper", "streamed"), "only level parameter"),
        (GradDrop(TASKS, level="parameter"), ("paper", "streamed"), "needs each coordinate"),
    ],
)
def test_what_cannot_stream_is_refused(method, rules: tuple[str, str], words: str):
    with pytest.raises(ValueError, match=words):
        method.set_rules(*rules)


def test_pieces_and_unshared_networks_are_refused():
    method = IMTLG(TASKS, level="parameter")
    method.set_rules("paper", "streamed")
    tasks = {t: Task(t, 2, L1(), []) for t in TASKS}
    targets = {t: torch.randn(6, 2) for t in TASKS}
    model = TrunkAndHeads(nn.Linear(5, 4), {t: nn.Linear(4, 2) for t in TASKS})
    with pytest.raises(ValueError, match=r"micro_batches=2 method\.jacobian=streamed"):
        step(model, tasks, method, torch.randn(6, 5), targets, micro_batches=2)
    model.shared_representation = False
    with pytest.raises(ValueError, match=r"Type method\.jacobian=whole"):
        step(model, tasks, method, torch.randn(6, 5), targets)
