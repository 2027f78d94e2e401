"""Ranks, sums over them, synchronised batch normalisation; what happens when a process dies."""

import contextlib
import copy
import itertools
import math
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtlbench.batch_norm import synchronise_batch_norm
from mtlbench.parallel import Ranks, _buckets, _device, _place, start, stop

# ---------------------------------------------------------------------------------------- one process


def test_one_process_sums_nothing():
    ranks = Ranks()
    tensor = torch.tensor([1.0, 2.0])
    assert ranks.sum(tensor) is tensor
    parameter = nn.Parameter(torch.ones(2))
    with ranks.summing([parameter]):
        assert not parameter._post_accumulate_grad_hooks
        parameter.sum().backward()
    with ranks.later() as begin:
        begin(tensor)
    assert tensor.tolist() == [1.0, 2.0]
    assert parameter.grad.tolist() == [1.0, 1.0]
    ranks.barrier()
    stop(ranks)


def test_one_process_broadcasts_to_itself_what_json_gives():
    assert Ranks().broadcast({"a": (1, 2.5), "b": None, "c": "Gewicht λ"}) == {
        "a": [1, 2.5],
        "b": None,
        "c": "Gewicht λ",
    }
    with pytest.raises(TypeError, match="not JSON serializable"):
        Ranks().broadcast({1, 2})


def test_one_process_leaves_batch_norm_alone():
    model = nn.Sequential(nn.BatchNorm1d(3))
    assert synchronise_batch_norm(model, Ranks()) is model
    assert type(model[0]) is nn.BatchNorm1d


def test_slices_of_a_batch_are_its_parts_in_order():
    parts = [Ranks(rank, 4).slice(8) for rank in range(4)]
    assert [i for part in parts for i in range(8)[part]] == list(range(8))


@pytest.mark.parametrize(
    ("batch_size", "size", "message"),
    [
        (10, 4, r"batch_size=10: 4 processes do not divide it\. Type batch_size=8 or 12\."),
        (2, 4, r"batch_size=2: 4 processes do not divide it\. Type batch_size=4\."),
    ],
)
def test_an_indivisible_batch_is_refused(batch_size, size, message):
    with pytest.raises(ValueError, match=message):
        Ranks(0, size).slice(batch_size)


TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "0",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, (0, 1, 0)),
        (TORCHRUN, (3, 4, 1)),
        (SRUN, (1, 2, 0)),
        ({**SRUN, **TORCHRUN}, (3, 4, 1)),  # torchrun inside a Slurm job
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 1, 0)),  # one task: what a launcher of single runs starts
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1, 0)),
        ({"LOCAL_RANK": "1"}, (0, 1, 0)),
        ({**SRUN, "RANK": "0", "WORLD_SIZE": "1"}, (0, 1, 0)),
    ],
)
def test_the_environment_says_which_process_this_is(environment, place):
    assert _place(environment) == place


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({k: v for k, v in TORCHRUN.items() if k != "WORLD_SIZE"}, "WORLD_SIZE= "),
        ({k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"}, "LOCAL_RANK= "),
        ({k: v for k, v in TORCHRUN.items() if k != "MASTER_ADDR"}, "MASTER_ADDR= "),
        ({k: v for k, v in SRUN.items() if k != "MASTER_PORT"}, "MASTER_PORT=:"),
        ({**TORCHRUN, "RANK": "4"}, "RANK=4 WORLD_SIZE=4"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK=-1"),
        ({**TORCHRUN, "WORLD_SIZE": "four"}, "WORLD_SIZE=four"),
        ({**TORCHRUN, "WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
    ],
)
def test_an_incomplete_environment_is_refused_with_what_to_type(environment, said):
    with pytest.raises(ValueError, match=said) as error:
        _place(environment)
    assert "torchrun --nproc-per-node" in str(error.value)
    assert "unset" in str(error.value)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _device("auto", 0) == _device("cpu", 5) == torch.device("cpu")
    with pytest.raises(ValueError, match=r"machine.device=cuda: torch finds no GPU .* machine.device=cpu"):
        _device("cuda", 0)
    with pytest.raises(ValueError, match=r"machine.device=gpu: type auto, cpu or cuda"):
        _device("gpu", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert _device("auto", 1) == _device("cuda", 1) == torch.device("cuda", 1)
    assert _device("cpu", 1) == torch.device("cpu")
    with pytest.raises(ValueError, match=r"process 2 .* finds 2 GPUs .* --nproc-per-node=2"):
        _device("auto", 2)


def test_start_without_others_is_one_process(monkeypatch):
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    assert start("cpu") == Ranks()
    assert not dist.is_initialized()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([torch.float32, torch.float64])), max_size=12),
    limit=st.integers(1, 120),
)
def test_buckets_hold_each_parameter_once_in_reverse_and_stay_small(sizes, limit):
    parameters = [nn.Parameter(torch.zeros(n, dtype=dtype)) for n, dtype in sizes]
    frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    buckets = _buckets([*parameters, frozen, *parameters], limit)
    for dtype in (torch.float32, torch.float64):
        of_dtype = [bucket for bucket in buckets if bucket[0].dtype == dtype]
        assert [id(p) for bucket in of_dtype for p in bucket] == [id(p) for p in parameters[::-1] if p.dtype == dtype]
        for bucket in of_dtype:
            assert {p.dtype for p in bucket} == {dtype}
            assert sum(p.nbytes for p in bucket) <= limit or len(bucket) == 1
        for bucket, following in itertools.pairwise(of_dtype):
            assert sum(p.nbytes for p in [*bucket, following[0]]) > limit


def test_a_batch_norm_with_a_forward_of_its_own_is_refused():
    class Strange(nn.BatchNorm2d):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match=r"sync_batch_norm: 1 is a Strange, .* Type sync_batch_norm=false"):
        synchronise_batch_norm(nn.Sequential(nn.Linear(2, 2), Strange(3)), Ranks(0, 2))


def test_on_gpus_batch_norm_becomes_torch_s_own():
    timm_layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(nn.BatchNorm1d(2), timm_layers.BatchNormAct2d(2))
    names = list(model.state_dict())
    synchronise_batch_norm(model, Ranks(0, 2, torch.device("cuda", 0)))
    assert type(model[0]) is nn.SyncBatchNorm
    assert type(model[1]) is timm_layers.SyncBatchNormAct
    assert list(model.state_dict()) == names
    x = torch.tensor([[[[-4.0]], [[4.0]]]])
    assert model.eval()[1](x).flatten().tolist() == pytest.approx([0.0, 4.0], rel=1e-4)  # the activation is kept


# ------------------------------------------------------------------------- two processes, one spawn for all


def _enter(rank: int, size: int, store: str) -> Ranks:
    torch.set_num_threads(1)
    limit = timedelta(seconds=120)  # a mismatch of collectives ends the test with an error
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=limit)
    return Ranks(rank, size, group=dist.new_group(timeout=limit))


def _checks(rank: int, size: int, store: str) -> None:
    ranks = _enter(rank, size, store)
    for check in (
        _check_sums,
        _check_laid_end_to_end,
        _check_broadcast,
        _check_bucketed_sums,
        _check_overlap,
        _check_missing_gradients,
        _check_gradients_by_hand,
        _check_memory_format,
        _check_second_backward,
        _check_exception,
        _check_batch_norm,
        _check_batch_norm_options,
    ):
        check(ranks)
        ranks.barrier()
    stop(ranks)


@pytest.mark.slow
def test_two_processes(tmp_path):
    multiprocessing.start_processes(_checks, args=(2, str(tmp_path / "store")), nprocs=2, start_method="spawn")


def _check_sums(ranks):
    tensor = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
    assert ranks.sum(tensor) is tensor
    assert tensor.tolist() == [3.0, 30.0]
    rows = torch.full((3, 2), float(ranks.rank))
    with ranks.later() as begin:
        for row in rows:
            begin(row)
    assert rows.tolist() == [[1.0, 1.0]] * 3


def _check_laid_end_to_end(ranks):
    mine = torch.tensor([[1.0, float("nan"), 3.0], []][ranks.rank])
    assert torch.equal(ranks.laid_end_to_end(mine).nan_to_num(-1.0), torch.tensor([1.0, -1.0, 3.0]))
    mine = torch.tensor([[1.0], [2.0, 3.0]][ranks.rank])
    assert ranks.laid_end_to_end(mine).tolist() == [1.0, 2.0, 3.0]
    assert Ranks().laid_end_to_end(mine) is mine


def _check_broadcast(ranks):
    said = ["open", {"ünï": [1, None, math.inf]}]
    assert ranks.broadcast(said if ranks.rank == 0 else object()) == said
    assert ranks.broadcast(0 if ranks.rank == 0 else None) == 0
    state = {"model": {"w": torch.arange(3.0)}, "n": 2**70, "none": None, "list": [(1, 2.5)]}
    got = ranks.broadcast_state(state if ranks.rank == 0 else None)
    assert torch.equal(got.pop("model")["w"], torch.arange(3.0))
    assert got == {"n": 2**70, "none": None, "list": [(1, 2.5)]}
    assert ranks.broadcast_state(None) is None


def _network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    mixed = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    mixed[4].float()  # two dtypes, so two kinds of bucket
    return mixed


def _loss(network, x):
    return network[4](network[:4](x).float()).square().sum()


def _check_bucketed_sums(ranks):
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = _network()
    sum(_loss(whole, part) for part in x.split(2)).backward()
    for limit in (1, 8, 100, 400, 1 << 30):  # from a bucket each to one for each dtype
        network = _network()
        with ranks.summing(network.parameters(), limit):
            _loss(network, x[ranks.slice(4)]).backward()
        for ours, theirs in zip(network.parameters(), whole.parameters(), strict=True):
            assert ours.grad.dtype == theirs.grad.dtype
            bound = {"rtol": 1e-5, "atol": 1e-6}  # the losses are float32
            torch.testing.assert_close(ours.grad, theirs.grad, **bound)
            assert not ours._post_accumulate_grad_hooks


def _check_overlap(ranks):
    """The last layer's sum has begun before the first layer's gradient is there."""
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    begun = []
    all_reduce = dist.all_reduce

    def counted(tensor, **keys):
        begun.append(tensor.numel())
        return all_reduce(tensor, **keys)

    at_first = []
    network[0].weight.register_hook(lambda gradient: at_first.append(list(begun)))
    dist.all_reduce = counted
    try:
        with ranks.summing(network.parameters(), 12 * 4):
            network(torch.ones(2, 3)).sum().backward()
    finally:
        dist.all_reduce = all_reduce
    assert at_first == [[12 + 2]]  # weight, bias and a mark for each of the two
    assert begun == [14, 14]


def _check_missing_gradients(ranks):
    both, first, none = (nn.Parameter(torch.full((2,), 3.0)) for _ in range(3))
    for limit in (1, 1 << 20):
        for order in ([both, first, none], [none, first, both]):
            for parameter in order:
                parameter.grad = None
            with ranks.summing(order, limit):
                (both.sum() + (5 * first.sum() if ranks.rank == 0 else 0)).backward()
            assert both.grad.tolist() == [2.0, 2.0]
            assert first.grad.tolist() == [5.0, 5.0]
            assert none.grad is None


def _check_gradients_by_hand(ranks):
    parameter = nn.Parameter(torch.zeros(2))
    with ranks.summing([parameter]):
        parameter.grad = torch.tensor([1.0, 2.0 * ranks.rank])
    assert parameter.grad.tolist() == [2.0, 2.0]
    with ranks.summing([]):
        pass


def _check_memory_format(ranks):
    convolution = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(2)
    dy = torch.randn(2, *convolution.weight.shape, generator=generator)
    with ranks.summing(convolution.parameters()):
        (convolution.weight * dy[ranks.rank]).sum().backward()
    assert convolution.weight.grad.stride() == convolution.weight.stride()
    torch.testing.assert_close(convolution.weight.grad, dy.sum(0))
    assert convolution.bias.grad is None


def _check_second_backward(ranks):
    parameter = nn.Parameter(torch.zeros(2))

    def twice():
        with ranks.summing([parameter]):
            parameter.sum().backward()
            parameter.sum().backward()

    with pytest.raises(AssertionError, match="one backward pass"):
        twice()
    assert not parameter._post_accumulate_grad_hooks


def _check_exception(ranks):
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]

    def interrupted():
        with ranks.summing(parameters, 1):
            sum(p.sum() for p in parameters).backward()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not any(p._post_accumulate_grad_hooks for p in parameters)
    assert ranks.sum(torch.ones(1)).item() == 2.0


def _norms():
    from timm.layers import BatchNormAct2d  # slow to import, so only here

    torch.manual_seed(0)
    vector, image, volume = (6, 3), (6, 3, 4, 5), (6, 3, 2, 2, 2)
    yield "1d", nn.BatchNorm1d(3), vector
    yield "1d with length", nn.BatchNorm1d(3), (6, 3, 4)
    yield "2d", nn.BatchNorm2d(3), image
    yield "3d", nn.BatchNorm3d(3), volume
    yield "not affine", nn.BatchNorm2d(3, affine=False), image
    yield "no running statistics", nn.BatchNorm2d(3, track_running_stats=False), image
    yield "cumulative average", nn.BatchNorm2d(3, momentum=None), image
    yield "eps and momentum", nn.BatchNorm2d(3, eps=0.1, momentum=0.7), image
    yield "timm", BatchNormAct2d(3, act_layer=nn.LeakyReLU), image
    yield "timm without activation", BatchNormAct2d(3, apply_act=False), image
    yield "inside", nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Tanh()), nn.Linear(4, 2)), vector


def _check_batch_norm(ranks):
    part = [slice(0, 1), slice(1, 6)][ranks.rank]  # one image here, five there
    generator = torch.Generator().manual_seed(3)
    for name, module, shape in _norms():
        reference = module.double().train()
        for parameter in reference.parameters():
            nn.init.normal_(parameter, generator=generator)
        ours = synchronise_batch_norm(copy.deepcopy(reference), ranks)
        assert list(ours.state_dict()) == list(reference.state_dict()), name
        assert isinstance(ours, type(reference)), name
        for _ in range(2):  # twice: running statistics
            x = 100 + torch.randn(shape, dtype=torch.float64, generator=generator)  # a mean that would cancel
            whole, mine = x.clone().requires_grad_(), x[part].clone().requires_grad_()
            expected = reference(whole)
            dy = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
            (expected * dy).sum().backward()
            y = ours(mine)
            with ranks.summing(ours.parameters()):
                (y * dy[part]).sum().backward()
            assert y.shape == expected[part].shape, name
            torch.testing.assert_close(y, expected[part], rtol=1e-12, atol=1e-12, msg=f"{name}: y")
            torch.testing.assert_close(mine.grad, whole.grad[part], rtol=1e-12, atol=1e-12, msg=f"{name}: dx")
            for (key, a), b in zip(ours.named_parameters(), reference.parameters(), strict=True):
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-11, msg=f"{name}: d{key}")
                a.grad = b.grad = None
            for key, value in reference.state_dict().items():
                torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-13, atol=1e-13, msg=f"{name}: {key}")
        for model in (ours, reference):
            model.eval()
        before = copy.deepcopy(ours.state_dict())
        expected = reference(x[part])
        torch.testing.assert_close(ours(x[part]), expected, rtol=1e-12, atol=1e-12, msg=f"{name}: eval")
        for key, value in before.items():
            assert torch.equal(value, ours.state_dict()[key]), name


def _check_batch_norm_options(ranks):
    once = synchronise_batch_norm(nn.BatchNorm2d(2), ranks)
    kind = type(once)
    assert type(synchronise_batch_norm(once, ranks)) is kind  # a second time changes nothing
    assert type(copy.deepcopy(once)) is kind
    with pytest.raises(ValueError, match="expected 4D input"):
        once(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"more than one value per channel.*together have 1\."):
        synchronise_batch_norm(nn.BatchNorm1d(2), ranks)(torch.zeros(ranks.rank, 2))
    # a process without any image, under bfloat16 activations
    x = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(4)).bfloat16()
    mine = (x if ranks.rank else x[:0]).requires_grad_()
    y = once(mine)
    with ranks.summing(once.parameters()):
        y.float().square().sum().backward()
    assert y.dtype == mine.grad.dtype == torch.bfloat16
    reference = nn.BatchNorm2d(2)
    expected = reference(x.float())
    expected.square().sum().backward()
    torch.testing.assert_close(once.weight.grad, reference.weight.grad, rtol=0.02, atol=0.02)
    torch.testing.assert_close(once.running_var, reference.running_var, rtol=1e-5, atol=1e-6)
    if ranks.rank:
        torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


# ------------------------------------------------------------------------------------ processes that die

TRAINING = """
import os, signal
import torch
from mtlbench.batch_norm import synchronise_batch_norm
from mtlbench.parallel import start, stop
torch.set_num_threads(1)
ranks = start("cpu")
failed = True
try:
    torch.manual_seed(0)
    network = synchronise_batch_norm(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)), ranks)
    for k in range(STEPS):
        if k == 5 and ranks.rank == 1:
            DEATH
        network.zero_grad()
        with ranks.summing(network.parameters()):
            network(torch.randn(2, 3)).square().sum().backward()
    failed = False
finally:
    stop(ranks, failed=failed)
print(f"rank {ranks.rank} ended well\\n", end="", flush=True)  # one write: the lines of two ranks do not mix
"""


def _torchrun(tmp_path, death: str, steps: int) -> subprocess.CompletedProcess:
    script = tmp_path / "training.py"
    script.write_text(TRAINING.replace("DEATH", death).replace("STEPS", str(steps)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {key: value for key, value in os.environ.items() if key not in (*TORCHRUN, *SRUN)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_torchrun_ends_well(tmp_path):
    ended = _torchrun(tmp_path, "pass", steps=20)
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.split("\n")) == ["", "rank 0 ended well", "rank 1 ended well"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "death", ["raise RuntimeError('a test')", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_a_rank_that_dies_ends_the_others(tmp_path, death):
    ended = _torchrun(tmp_path, death, steps=1_000_000)
    assert ended.returncode != 0
    assert "ended well" not in ended.stdout


def _one_leaves(rank: int, size: int, store: str) -> None:
    ranks = _enter(rank, size, store)
    parameter = nn.Parameter(torch.zeros(2))
    with pytest.raises(RuntimeError, match=r"closed|reset|peer") if rank == 0 else contextlib.nullcontext():
        for k in range(1_000_000):
            if k == 5 and rank == 1:
                os._exit(0)
            with ranks.summing([parameter]):
                parameter.sum().backward()
            parameter.grad = None
    stop(ranks, failed=True)
    os._exit(0)  # gloo's threads, whose peer is gone, may abort a process that ends the usual way


@pytest.mark.slow
def test_without_a_launcher_the_others_fail_by_themselves(tmp_path):
    """Nothing kills rank 0 here: it meets the closed connection."""
    multiprocessing.start_processes(_one_leaves, args=(2, str(tmp_path / "store")), nprocs=2, start_method="spawn")
