"""Level "parameter" without the Jacobian [T, P]: the Gramian is summed over blocks of layers, whose rows are dropped.

A block is a stretch of the backbone's graph. The T gradients of its parameters and of what it reads come from those of
what it gives; the latter go on to the next block. At the end the weighted sum of the gradients at z goes through the
backbone once more. So the memory is that of the widest block, and the time that of T + 1 passes instead of T.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from mtlbench.parallel import Ranks
from mtlbench.passes import FeaturePass, Work
from mtlbench.rows import gather, gramian_of, to_host

Edge = tuple[Node, int]


class Block(NamedTuple):
    """nodes: of the graph. parameters: positions of those that they read. gives: edges to nodes of later blocks."""

    nodes: set[Node]
    parameters: list[int]
    gives: list[Edge]


class StreamedPass(FeaturePass):
    """Level "parameter" for methods that need the Gramian alone: one [T, widest block] instead of one [T, P]."""

    graph = True

    def __init__(self, work: Work):
        super().__init__(work)
        if len(work.pieces) > 1:
            raise ValueError(
                f"micro_batches={len(work.pieces)} method.jacobian=streamed: the rows of all pieces would have to be "
                f"kept. Type method.jacobian=whole or micro_batches=1."
            )

    def look(self, features: tuple[Tensor, ...], rows: list[Tensor], last: bool) -> None:
        self.gramian = streamed_gramian(features, rows, self.work.shared, self.work.ranks)

    def losses_and_gramian(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        both = to_host(torch.cat([self.work.ranks.sum(losses), self.gramian.flatten()]))
        return both[: len(losses)], both[len(losses) :].view_as(self.gramian)


def streamed_gramian(
    features: tuple[Tensor, ...], rows: list[Tensor], parameters: list[nn.Parameter], ranks: Ranks
) -> Tensor:
    """The Gramian [T, T] of the gradients of parameters, in float64, from those at the features (rows [T, N] of each).

    Each block's rows are summed over ranks before they are multiplied. The graph is kept.
    """
    count = len(rows[0])
    gramian = rows[0].new_zeros(count, count, dtype=torch.float64)
    pending: dict[Edge, list[Tensor]] = {}
    for feature, row in zip(features, rows, strict=True):
        if feature.requires_grad:
            pending[_edge(feature)] = [gradient.view_as(feature) for gradient in row]
    if not pending or not parameters:
        return gramian
    for block in blocks_of(list(pending), parameters):
        inside = [parameters[i] for i in block.parameters]
        jacobian = parameters[0].new_empty(count, sum(p.numel() for p in inside))
        sources = {edge: pending.pop(edge) for edge in list(pending) if edge[0] in block.nodes}
        passed = []
        for t in range(count):
            gradients = torch.autograd.grad(
                [GradientEdge(*edge) for edge in sources],
                [*inside, *(GradientEdge(*edge) for edge in block.gives)],
                [of_tasks[t] for of_tasks in sources.values()],
                retain_graph=True,
                allow_unused=True,
            )
            gather(gradients[: len(inside)], jacobian[t], inside, set(), add=False)
            passed.append(gradients[len(inside) :])
        for edge, new in zip(block.gives, zip(*passed, strict=True), strict=True):
            old = pending.get(edge)
            if all(gradient is not None for gradient in new):
                pending[edge] = list(new) if old is None else [a + b for a, b in zip(old, new, strict=True)]
        gramian += gramian_of([ranks.sum(jacobian)])
    return gramian


def blocks_of(roots: Sequence[Edge], parameters: Sequence[nn.Parameter]) -> Iterator[Block]:
    """The graph behind the roots in blocks of at most the size of the largest parameter, where it can be cut so.

    All of a parameter's uses are in one block, or its row would be a sum over several. No edge that a block gives leads
    to another one: autograd would go through the first and count it again (so a residual unit is not cut inside).
    """
    places = {get_gradient_edge(parameter).node: i for i, parameter in enumerate(parameters)}
    order = _from_outputs_to_inputs([node for node, _ in roots])
    position = {node: k for k, node in enumerate(order)}
    left = [0] * len(parameters)
    for node in order:
        for reads, _ in node.next_functions:
            if reads in places:
                left[places[reads]] += 1
    widest = max(parameter.numel() for parameter in parameters)
    nodes: set[Node] = set()
    inside: dict[int, None] = {}
    gives: dict[Edge, None] = {}
    for node in order:
        own = [places[reads] for reads, _ in node.next_functions if reads in places]
        size = sum(parameters[i].numel() for i in {*inside, *own})
        complete = not any(left[i] for i in inside)
        if inside and size > widest and complete and _apart([node for node, _ in gives], position):
            yield Block(nodes, list(inside), list(gives))
            nodes, inside, gives = set(), {}, {}
        nodes.add(node)
        for edge in [edge for edge in gives if edge[0] is node]:
            del gives[edge]
        for reads, number in node.next_functions:
            if reads in places:
                left[places[reads]] -= 1
                inside[places[reads]] = None
            elif reads in position:
                gives[(reads, number)] = None
    yield Block(nodes, list(inside), [])


def _apart(nodes: Sequence[Node], position: dict[Node, int]) -> bool:
    """Whether none of the nodes is behind another one."""
    wanted, last = set(nodes), max((position[node] for node in nodes), default=0)
    seen: set[Node] = set()
    stack = list(wanted)
    while stack:
        for reads, _ in stack.pop().next_functions:
            if reads in wanted:
                return False
            if reads not in seen and position.get(reads, last) < last:
                seen.add(reads)
                stack.append(reads)
    return True


def _from_outputs_to_inputs(roots: Sequence[Node]) -> list[Node]:
    """All nodes of the graph but its leaves, each before what it reads."""
    seen, finished = set(), []
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, done = stack.pop()
        if done:
            finished.append(node)
        elif node not in seen and node.next_functions:
            seen.add(node)
            stack.append((node, True))
            stack += [(reads, False) for reads, _ in node.next_functions if reads is not None and reads not in seen]
    return finished[::-1]


def _edge(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr
