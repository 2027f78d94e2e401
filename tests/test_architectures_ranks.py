"""Two processes train every architecture as one does: gradients, weights, lines of the record."""

from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from omegaconf import OmegaConf

from mtlbench import config
from mtlbench.parallel import Ranks, stop
from test_architectures import KINDS, WITHOUT, Reader, Tiny
from test_ranks import EPOCHS, STEPS, TASKS, compare, run, same

METHODS = {
    "equal": ("loss", ["method=equal"]),
    "imtl, feature": ("feature", ["method=imtl", "method.level=feature"]),
    "imtl, parameter": ("parameter", ["method=imtl", "method.level=parameter"]),
    "gradnorm": ("layer", ["method=gradnorm", "method.level=layer"]),
}


class Wide(Tiny):
    """With a parameter that nothing uses."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(7))


def network(kind: str):
    return KINDS[kind](backbone=Wide, head=Reader, tasks=TASKS)


def work(rank: int, store: str, cases: list[tuple[str, str, dict]]) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=300)  # a mismatch of collectives ends the test with an error
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=limit)
    ranks = Ranks(rank, 2, group=dist.new_group(timeout=limit))
    for kind, name, method in cases:
        what = f"{kind}, {name}"
        one, many = (run(partial(network, kind), method, r) for r in (Ranks(), ranks))
        assert len(one.results) == STEPS * EPOCHS, what
        assert one.diverged is None, f"{what}: {one.diverged}"
        first, last = one.weights[0], one.weights[-1]
        still = {key for key, _ in one.model.named_parameters() if torch.equal(first[key], last[key])}
        assert len(still) == one.model.columns, f"{what}: {still} did not move"  # the unused one of each column
        compare(many, one, f"{what}, rank {rank}")
        theirs = ranks.broadcast_state(many.weights[-1])
        for key, value in many.weights[-1].items():
            assert same(value, theirs[key]), f"{what}: {key} differs between the ranks"
    stop(ranks)


@pytest.mark.slow
def test_two_processes_train_every_architecture_as_one(tmp_path):
    nodes = {
        name: OmegaConf.to_container(config.load(words).method, resolve=True) for name, (_, words) in METHODS.items()
    }
    cases = [
        (kind, name, nodes[name])
        for kind in KINDS
        for name, (level, _) in METHODS.items()
        if not (level == "feature" and kind in WITHOUT)
    ]
    assert len(cases) == 4 * len(KINDS) - len(WITHOUT)
    multiprocessing.start_processes(work, args=(str(tmp_path / "store"), cases), nprocs=2, start_method="spawn")
