"""Full sharing, cross-stitch, NDDR-CNN and MTAN: their definitions, what they share, and their gradients."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtlbench import build, config
from mtlbench import memory as memories
from mtlbench.architectures.cross_stitch import CrossStitch
from mtlbench.architectures.full_sharing import FullSharing
from mtlbench.architectures.mtan import MTAN
from mtlbench.architectures.multi_decoder import MultiDecoder
from mtlbench.architectures.nddr_cnn import NDDRCNN
from mtlbench.backbones.segnet import SegNet
from mtlbench.methods.imtl_g import IMTLG
from mtlbench.model import Backbone, MapHead, MultiTaskModel, Stage
from mtlbench.step import step
from mtlbench.task import Loss, Task
from mtlbench.weighting import Weighting, check_level

CHANNELS = {"a": 2, "b": 1, "c": 3}

KINDS = {
    "full_sharing": FullSharing,
    "cross_stitch": CrossStitch,
    "cross_stitch, first stages": partial(CrossStitch, stages=["stem", "one"], per="map"),
    "nddr_cnn": NDDRCNN,
    "mtan": MTAN,
    "mtan, as in the code": partial(
        MTAN, narrow=2, refinement="bottleneck", shared_refinement=True, refine_last=False
    ),
}  # fmt: skip
WITHOUT = ("cross_stitch", "cross_stitch, first stages", "nddr_cnn", "mtan, as in the code")
"""Those without one shared representation."""


class Tiny(Backbone):
    """A stem and two stages of two layers, the second of stride 2; its maps are read from both."""

    channels, reductions = (4, 4), (1, 2)

    def __init__(self, normalise: bool = True):
        super().__init__()
        norm = nn.BatchNorm2d if normalise else lambda width: nn.Identity()
        self.stem = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False), norm(3), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(norm(4), nn.Tanh(), nn.Conv2d(4, 4, 1)))
        self.two = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Sequential(nn.ReLU(), norm(4)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.in_stages(image)

    def stages(self) -> dict[str, Stage]:
        return {
            "stem": Stage(3, (self.stem,)),
            "one": Stage(4, (self.one,), inner=4, read=True),
            "two": Stage(4, (self.two,), inner=4, read=True),
        }

    def stage(self, name: str, x: Tensor, memory: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
        if name == "stem":
            return None, self.stem(x)
        first, second = getattr(self, name)
        inner = first(x)
        return inner, second(inner)

    def collect(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return maps["one"], maps["two"]


class Reader(MapHead):
    """Both maps side by side through one convolution, then `predict`."""

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], out_channels: int):
        super().__init__()
        self.mix = nn.Conv2d(sum(channels), 3, 1)
        self.predict = nn.Conv2d(3, out_channels, 1)

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        fine, coarse = features
        return self.mix(torch.cat([fine, F.interpolate(coarse, fine.shape[-2:])], 1)).tanh()


class Squared(Loss):
    """The mean over valid terms of (prediction - target)^2, NaN = no label."""

    def counts(self, target: Tensor) -> Tensor:
        return (~target.isnan()).sum(dtype=torch.float64).reshape(1)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        difference = torch.where(target.isnan(), 0 * prediction, prediction - target.nan_to_num())
        return difference.square().sum() / counts[0].clamp(min=1).to(prediction.dtype)


class Balancing(Weighting):
    """IMTL-G after a transform that mixes tasks."""

    levels = ("loss", "feature", "layer", "parameter")

    def __init__(self, tasks: Sequence[str], level: str, touches: str):
        super().__init__(tasks, level)
        self.touches, self.after = touches, IMTLG(tasks)

    def transform(self, losses, tasks, rng):
        return losses.sqrt() + 0.1 * losses.sum() * losses

    def weights(self, losses, gramian, tasks, rng):
        return self.after.weights(losses, gramian, tasks, rng)


def tasks_of(*names: str) -> dict[str, Task]:
    return {name: Task(name, CHANNELS[name], Squared(), ()) for name in names}


def made(kind: str, *names: str, seed: int = 0, normalise: bool = True, backbone=None) -> MultiTaskModel:
    torch.manual_seed(seed)
    make = MultiDecoder if kind == "multi_decoder" else KINDS.get(kind, kind)
    backbone = backbone or partial(Tiny, normalise=normalise)
    return make(backbone=backbone, head=Reader, tasks=tasks_of(*(names or CHANNELS))).double()


def batch(absent: Sequence[str] = (), side: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    image = torch.randn(4, 3, side, side + 1, generator=draw, dtype=torch.float64)
    targets = {}
    for i, (name, width) in enumerate(CHANNELS.items()):
        target = (1 + i) * torch.randn(4, width, side, side + 1, generator=draw, dtype=torch.float64)
        target[torch.rand(target.shape, generator=draw) < 0.3 * i] = math.nan
        targets[name] = target * math.nan if name in absent else target
    return image, targets


def losses_of(
    model: MultiTaskModel, image: Tensor, targets: Mapping[str, Tensor], names: Sequence[str]
) -> list[Tensor]:
    predictions = model(image)
    valid = {name: ~targets[name].isnan() for name in names}
    return [(predictions[n] - targets[n])[valid[n]].square().mean() for n in names]


def close(found: Tensor | None, expected: Tensor | None, tolerance: float = 1e-11) -> bool:
    if found is None or expected is None:
        return found is expected
    return bool((found - expected).norm() <= tolerance * max(1.0, expected.norm().item()))


# ---------------------------------------------------------------------------------------- what is shared


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")], ids=len)
@pytest.mark.parametrize("kind", KINDS)
def test_shared_are_the_parameters_that_several_tasks_reach(kind, names):
    model = made(kind, *names)
    image, targets = batch()
    parameters = list(model.parameters())
    reached: dict[nn.Parameter, list[str]] = {p: [] for p in parameters}
    for name, loss in zip(names, losses_of(model, image, targets, names), strict=True):
        for p, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), strict=True
        ):
            if gradient is not None:
                reached[p].append(name)
    assert all(reached.values())
    assert {p for p, by in reached.items() if len(by) > 1} == set(model.shared_parameters())
    for name in names:
        assert {p for p, by in reached.items() if by == [name]} == set(model.task_parameters(name))
    layer = model.last_shared_layer()
    assert layer
    assert set(layer) <= set(model.shared_parameters())
    assert any(p.ndim == 4 for p in layer)


def test_which_have_one_representation_and_which_tensors_it_holds():
    models = {kind: made(kind) for kind in KINDS}
    assert {kind for kind, model in models.items() if not model.shared_representation} == set(WITHOUT)
    image, _ = batch(side=6)
    assert [tuple(z.shape[1:]) for z in models["full_sharing"].encode(image)] == [(3, 6, 7)]
    # inside and behind each of the two stages
    assert [tuple(z.shape[1:]) for z in models["mtan"].encode(image)] == [(4, 6, 7)] * 2 + [(4, 3, 4)] * 2
    assert all("none" in models[kind].representation for kind in WITHOUT[:3])
    assert len(models["cross_stitch"].last_shared_layer()) == 2 * 3  # weight and bias of every column's


@pytest.mark.parametrize("kind", KINDS)
def test_weights_hang_on_the_seed_and_names_alone(kind):
    model, again, turned, other = (
        made(kind, "a", "b"), made(kind, "a", "b"), made(kind, "b", "a"), made(kind, "a", "b", seed=1)
    )  # fmt: skip
    states = [m.state_dict() for m in (model, again, turned, other)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])
        if not ("nddr" in kind and "unit" in key) and "alpha" not in key:  # their rows stand in the tasks' order
            assert torch.equal(value, states[2][key]), key
    assert any(not torch.equal(value, states[3][key]) for key, value in states[0].items())
    torch.manual_seed(4)
    draws = torch.get_rng_state()
    KINDS[kind](backbone=Tiny() if "mtan" in kind or "full" in kind else copy.deepcopy(model.column("a")), head=Reader,
                tasks=tasks_of("a", "b"))  # fmt: skip
    if "cross" in kind or "nddr" in kind:
        assert torch.equal(torch.get_rng_state(), draws)


@pytest.mark.parametrize("side", [4, 5, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_decoding(kind, side):
    model, (image, _) = made(kind), batch(side=side)
    model.eval()
    whole = model(image)
    for name, width in CHANNELS.items():
        assert whole[name].shape == (4, width, side, side + 1)
        assert close(model.decode(name, model.encode(image), (side, side + 1)), whole[name])
    assert list(model(image, ["c"])) == ["c"]


# ------------------------------------------------------------------------------------------ definitions


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [partial(CrossStitch, same=1.0, other=0.0),
                                  partial(NDDRCNN, same=1.0, other=0.0, normalise=False)])  # fmt: skip
def test_units_that_mix_nothing_leave_single_task_networks(kind, training):
    image, _ = batch()
    found = made(kind).train(training)(image)
    for name in CHANNELS:
        assert close(found[name], made("multi_decoder", name).train(training)(image)[name], 1e-14)


def test_masks_of_ones_leave_the_backbone():
    class Ones(nn.Module):
        def forward(self, x):
            return torch.ones(())

    model, (image, _) = made(partial(MTAN, refine_last=False)), batch()
    for stage, task in itertools.product(model.masked, CHANNELS):
        setattr(model, f"mask_{stage}_{task}", Ones())
    expected = made("multi_decoder")(image)
    assert all(close(found, expected[name], 1e-14) for name, found in model(image).items())


def test_full_sharing_of_one_task_is_the_single_task_network():
    image, _ = batch()
    for name in CHANNELS:
        assert torch.equal(made("full_sharing", name)(image)[name], made("multi_decoder", name)(image)[name])


def test_full_sharing_has_one_decoder_and_a_convolution_for_each_task():
    model, (image, _) = made("full_sharing"), batch()
    heads = {name: made("multi_decoder", name).head(name) for name in CHANNELS}
    z = heads["a"].embed(made("multi_decoder", "a").backbone(image))
    for name, found in model(image).items():
        assert torch.equal(found, heads["a"].resize(heads[name].predict(z), image.shape[-2:]))


def test_a_stitch_is_the_weighted_sum_of_the_papers_equation():
    model = made("cross_stitch")
    assert model.mixed == ("one", "two")
    unit = model.get_submodule("unit_two_b")
    assert close(unit.alpha, torch.tensor([[0.1] * 4, [0.9] * 4, [0.1] * 4]).double(), 1e-7)
    maps = [torch.randn(2, 4, 3, 3, dtype=torch.float64) for _ in CHANNELS]
    nn.init.normal_(unit.alpha)
    expected = torch.einsum("tc,tbchw->bchw", unit.alpha, torch.stack(maps))
    assert close(unit(maps), expected, 1e-14)
    shared = made(partial(CrossStitch, share=True, per="map")).get_submodule("unit_one_a").alpha
    assert close(shared, torch.tensor([[0.9], [0.05], [0.05]]).double(), 1e-7)


def test_the_stitched_maps_go_on_through_the_columns():
    """A direct transcription: the stages of three columns side by side."""
    model, (image, _) = made("cross_stitch"), batch()
    columns = [model.column(name) for name in CHANNELS]
    maps, seen = [image] * 3, {}
    for stage in ("stem", "one", "two"):
        maps = [getattr(column, stage)(x) for column, x in zip(columns, maps, strict=True)]
        if stage != "stem":
            units = [model.get_submodule(f"unit_{stage}_{name}").alpha for name in CHANNELS]
            maps = [sum(w.view(1, -1, 1, 1) * x for w, x in zip(alpha, maps, strict=True)) for alpha in units]
        seen[stage] = maps
    for name, one, two in zip(CHANNELS, seen["one"], seen["two"], strict=True):
        again = made("cross_stitch")(image)[name]
        assert close(model.head(name)((one, two), image.shape[-2:]), again, 1e-13)


def test_a_reduction_begins_with_a_diagonal_in_each_block():
    model = made("nddr_cnn")
    assert model.mixed == ("stem", "one", "two")
    unit = model.get_submodule("unit_stem_b")
    eye = torch.eye(3)
    expected = torch.cat([0.1 * eye, 0.9 * eye, 0.1 * eye], 1)[..., None, None]
    assert close(unit.reduce.weight, expected.double(), 1e-7)
    assert (unit.reduce.bias, unit.after[0].momentum) == (None, 0.05)
    maps = [torch.randn(2, 3, 4, 4, dtype=torch.float64) for _ in CHANNELS]
    mixed = 0.1 * maps[0] + 0.9 * maps[1] + 0.1 * maps[2]
    assert close(unit(maps), F.batch_norm(mixed, None, None, training=True).relu(), 1e-6)
    random = made(partial(NDDRCNN, same=None, other=None)).get_submodule("unit_stem_b").reduce.weight
    assert (random != 0).all()


def test_mtan_on_a_residual_network_is_its_equations():
    """The chain of Liu et al. 2019, Section 3.2, written out for two stages."""
    model, (image, _) = made("mtan", "a", "b"), batch()
    inner, maps, x = {}, {}, model.backbone.stem(image)
    for stage in ("one", "two"):
        first, second = getattr(model.backbone, stage)
        inner[stage] = first(x)
        x = maps[stage] = second(inner[stage])
    found = made("mtan", "a", "b")(image)
    for name in ("a", "b"):
        part = lambda what, name=name: model.get_submodule(f"{what}_{name}")  # noqa: E731
        one = part("mask_one")(inner["one"]) * maps["one"]
        refined = F.max_pool2d(part("leave_one")(one), 2, ceil_mode=True)
        two = part("mask_two")(torch.cat([inner["two"], refined], 1)) * maps["two"]
        last = part("leave_two")(two)
        assert close(model.get_submodule(f"head_{name}")((one, last), image.shape[-2:]), found[name], 1e-13)


def test_mtan_on_segnet_is_the_authors_chain():
    """The network of the authors' SegNet code, transcribed: shared refinements, pooling behind the encoder's, enlarging
    before the decoder's, masks from the unpooled maps."""
    widths, names = (2, 3, 4, 5, 5), ("a", "b")
    torch.manual_seed(0)
    net = MTAN(partial(SegNet, "mtan", widths), SegReader, tasks_of(*names), shared_refinement=True).double()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)).double()
    found = net.eval()(image)
    shared = net.backbone
    inner, maps, pooled, places, x = [], [], [], [], image
    for block in shared.encoder:
        inner.append(block[:3](x))
        maps.append(block[3:](inner[-1]))
        x, at = F.max_pool2d(maps[-1], 2, return_indices=True)
        pooled.append(x)
        places.append(at)
    up, decoded = [], []
    for block, at in zip(shared.decoder, reversed(places), strict=True):
        up.append(F.max_unpool2d(x, at, 2))
        x = block(up[-1])
        decoded.append(x)
    for name in names:
        attended = None
        for k in range(5):
            read = inner[k] if k == 0 else torch.cat([inner[k], attended], 1)
            masked = net.get_submodule(f"mask_encoder{k + 1}_{name}")(read) * maps[k]
            attended = F.max_pool2d(net.get_submodule(f"leave_encoder{k + 1}_")(masked), 2)
        for k in range(5):
            attended = F.interpolate(attended, scale_factor=2, mode="bilinear", align_corners=True)
            attended = net.get_submodule(f"enter_decoder{5 - k}_")(attended)
            mask = net.get_submodule(f"mask_decoder{5 - k}_{name}")(torch.cat([up[k], attended], 1))
            attended = mask * decoded[k]
        assert close(net.get_submodule(f"head_{name}")((attended,), (64, 64)), found[name], 1e-12)
    # channels of the code: 512 -> 512 on entering the decoder, then 512 -> 256 and so on
    enters = [net.get_submodule(f"enter_decoder{k}_")[0] for k in (5, 4, 3, 2, 1)]
    assert [(c.in_channels, c.out_channels) for c in enters] == [(5, 5), (5, 4), (4, 3), (3, 2), (2, 2)]


class SegReader(MapHead):
    def __init__(self, channels: Sequence[int], reductions: Sequence[int], out_channels: int):
        super().__init__()
        self.predict = nn.Conv2d(channels[-1], out_channels, 1)

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        return features[-1]


# ------------------------------------------------------------------------------------------- gradients


def brute_force(model: MultiTaskModel, method: Weighting, image: Tensor, targets: Mapping[str, Tensor]):
    """Gradients by name, and the Gramian, from the definitions: a whole graph for each task."""
    present = [name for name in CHANNELS if not targets[name].isnan().all()]
    losses = losses_of(model, image, targets, present)
    values = torch.stack(losses).detach()
    slope = torch.autograd.functional.jacobian(lambda x: method.transform(x, present, None), values)

    def rows(of: list[Tensor], inputs: list[Tensor]) -> Tensor:
        found = [torch.autograd.grad(l, inputs, retain_graph=True, materialize_grads=True) for l in of]
        return torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in found])

    shared = model.shared_parameters()
    if method.level == "feature":
        leaves = [z.detach().requires_grad_() for z in model.encode(image)]
        size = tuple(image.shape[-2:])
        again = []
        for name in present:
            valid = ~targets[name].isnan()
            again.append((model.decode(name, tuple(leaves), size) - targets[name])[valid].square().mean())
        raw = rows(again, leaves)
    else:
        raw = rows(losses, model.last_shared_layer() if method.level == "layer" else shared)
    gramian = raw @ raw.T
    weights = torch.ones_like(values)
    if method.level != "loss":
        weights = method.weights(method.transform(values, present, None), slope @ gramian @ slope.T, present, None)
    scale = slope.T @ (weights if method.touches == "everything" else torch.ones_like(values))
    found: dict[str, Tensor | None] = {}
    own = {id(p): name for name in CHANNELS for p in model.task_parameters(name)}
    for name, p in model.named_parameters():
        owner = own.get(id(p))
        if owner is not None and owner not in present:
            found[name] = None
            continue
        factors = slope.T @ weights if owner is None else [0.0] * present.index(owner) + [scale[present.index(owner)]]
        of = losses if owner is None else losses[: present.index(owner) + 1]
        total = sum(factor * loss for factor, loss in zip(factors, of, strict=True))
        (found[name],) = torch.autograd.grad(total, p, retain_graph=True, allow_unused=True)
    return found, (None if method.level == "loss" else gramian)


CASES = [
    (kind, level, touches)
    for kind, level, touches in itertools.product(
        KINDS, ("loss", "feature", "layer", "parameter"), ("shared", "everything")
    )
    if not (level == "feature" and kind in WITHOUT)
]


@pytest.mark.parametrize("absent", [(), ("b",)], ids=["all", "absent"])
@pytest.mark.parametrize(("kind", "level", "touches"), CASES)
def test_gradients_of_every_architecture_and_level_by_brute_force(kind, level, touches, absent):
    image, targets = batch(absent)
    model, method = made(kind), Balancing(tuple(CHANNELS), level, touches)
    expected, gramian = brute_force(copy.deepcopy(model), method, image, targets)
    result = step(model, tasks_of(*CHANNELS), method, image, targets)
    assert result.problem is None
    assert close(result.gramian, gramian)
    for name, parameter in model.named_parameters():
        assert close(parameter.grad, expected[name]), name


@pytest.mark.parametrize("words", ["mgda", "pcgrad", "imtl", "cagrad", "gradnorm", "graddrop"])
@pytest.mark.parametrize("kind", KINDS)
def test_methods_run_on_all_architectures(kind, words):
    level = "layer" if words == "gradnorm" else "parameter"
    overrides = [f"method={words}"] + ([f"method.level={level}"] if words in ("mgda", "imtl") else [])
    method = config.build_method(config.load(overrides).method, list(CHANNELS)).double()
    model = made(kind)
    check_level(method, model)
    rng = torch.Generator().manual_seed(0)
    result = step(model, tasks_of(*CHANNELS), method, *batch(), rng=rng)
    assert (result.problem, method.level) == (None, level)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("kind", "level"), sorted({case[:2] for case in CASES}))
def test_batch_statistics_move_once_a_step(kind, level):
    model, plain = made(kind), made(kind)
    step(model, tasks_of(*CHANNELS), Balancing(tuple(CHANNELS), level, "shared"), *batch())
    plain(batch()[0])
    for key, buffer in plain.named_buffers():
        if "num_batches_tracked" in key:
            # a refinement that all tasks share normalises the map of each
            assert buffer == (3 if key.startswith(("leave", "enter")) and "code" in kind else 1), key
        assert torch.allclose(model.get_buffer(key).double(), buffer.double(), rtol=1e-12), key


def test_a_parameter_that_nothing_uses_costs_nothing():
    class Wide(Tiny):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(300, 300)

    for kind, level in itertools.product(KINDS, ("loss", "layer", "parameter")):
        model, plain = made(kind, backbone=Wide), made(kind)
        shared = {k: v for k, v in model.state_dict().items() if "unused" not in k}
        plain.load_state_dict(shared)
        results = [
            step(net, tasks_of(*CHANNELS), Balancing(tuple(CHANNELS), level, "shared"), *batch())
            for net in (model, plain)
        ]
        assert close(results[0].losses, results[1].losses)
        assert close(results[0].weights, results[1].weights)
        gradients = {name: p.grad for name, p in plain.named_parameters()}
        for name, p in model.named_parameters():
            assert close(p.grad, gradients.get(name)), name
        torch.optim.Adam(model.parameters()).step()


# --------------------------------------------------------------------------------------------- options


def test_the_run_builds_them_with_the_weights_of_single_task_runs():
    words = ["dataset=multidigits", "architecture=cross_stitch", "backbone=timm", "backbone.name=resnet10t",
             "backbone.pool=true", "head=linear", "architecture.stages=[layer2]"]  # fmt: skip
    tasks = {name: Task(name, 10, Squared(), (), "vector") for name in ("left", "right")}
    holder = type("Holder", (), {"tasks": tasks, "all_tasks": tasks})
    network = build.model(config.load(words), holder, build.Ranks())
    alone = {name: tasks[name] for name in ["right"]}
    holder_of_one = type("Holder", (), {"tasks": alone, "all_tasks": alone})
    single = build.model(config.load([w for w in words if "architecture" not in w]), holder_of_one, build.Ranks())
    for key, value in single.backbone.state_dict().items():
        assert torch.equal(value, network.column("left").state_dict()[key])
        assert torch.equal(value, network.column("right").state_dict()[key])
    for key, value in single.head("right").state_dict().items():
        assert torch.equal(value, network.head("right").state_dict()[key])
    groups = build.parameter_groups(network, 0.01)
    assert [group.get("lr") for group in groups] == [None, pytest.approx(1.0)]
    assert {p.shape[0] for p in groups[1]["params"]} == {2}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert len(build.parameter_groups(single, 0.01)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_task_trains(kind):
    model = made(kind, "a")
    method = config.build_method(config.load(["method=equal"]).method, ["a"]).double()
    image, targets = batch()
    assert step(model, tasks_of("a"), method, image, {"a": targets["a"]}).problem is None
    assert all(p.grad is not None for p in model.parameters())


def test_columns_start_from_single_task_runs(tmp_path):
    states = {name: made("multi_decoder", name, seed=7).float().state_dict() for name in CHANNELS}
    (tmp_path / "run").mkdir()
    torch.save({"model": states["a"], "epoch": 3}, tmp_path / "run" / "best.pt")
    torch.save({"model": states["c"]}, tmp_path / "checkpoint.pt")
    pretrained = {"a": str(tmp_path / "run"), "c": str(tmp_path / "checkpoint.pt")}
    model = made(partial(CrossStitch, pretrained=pretrained, same=1.0, other=0.0))
    image, _ = batch()
    for name, seed in {"a": 7, "b": 0, "c": 7}.items():
        assert close(model(image)[name], made("multi_decoder", name, seed=seed)(image)[name], 1e-5)
    torch.save({"weights": 1}, tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    for wrong, message in {
        ("d", "checkpoint.pt"): r"architecture\.pretrained\.d: there is no such task\. There are: a, b, c",
        ("a", "nothing.pt"): r"there is no nothing\.pt\. Expected the folder of a finished single-task run",
        ("a", "."): r"checkpoint\.pt: |not this network's head_a \(2 missing: |4 missing",
        ("a", "other.pt"): r"other\.pt is no checkpoint of a run",
        ("a", "broken.pt"): r"broken\.pt cannot be read",
        ("b", "run"): r"not this network's head_b \(4 missing: .*architecture=multi_decoder",
    }.items():
        task, source = wrong
        with pytest.raises(ValueError, match=message):
            made(partial(CrossStitch, pretrained={task: str(tmp_path / source)}))


class Blind(Backbone):
    channels, reductions = (2,), (1,)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (image,)


class Flat(Tiny):
    def stages(self) -> dict[str, Stage]:
        return {name: stage._replace(inner=0) for name, stage in super().stages().items()}


class VectorHead(nn.Module):
    def __init__(self, channels, reductions, out_channels):
        super().__init__()


@pytest.mark.parametrize(("make", "backbone", "head", "message"), [
    (CrossStitch, Blind, Reader, r"Blind has no stages to look into\. Type architecture=multi_decoder"),
    (MTAN, Blind, Reader, r"Blind has no stages"),
    (partial(CrossStitch, stages=["one", "layer9"]), Tiny, Reader,
     r"stages=\[one,layer9\]: Tiny has no stage layer9\. There are: stem, one, two"),
    (partial(NDDRCNN, stages=[]), Tiny, Reader, r"no stage is named\. There are: stem, one, two"),
    (partial(MTAN, stages=["stem"]), Tiny, Reader, r"no stem of Tiny .* Those that have: one, two"),
    (MTAN, Flat, Reader, r"no stage of Flat .* Type a ResNet"),
    (partial(MTAN, refinement="linear"), Tiny, Reader, r"refinement=linear: expected conv or bottleneck"),
    (partial(MTAN, narrow=0), Tiny, Reader, r"narrow=0: expected 1 or more"),
    (partial(CrossStitch, per="pixel"), Tiny, Reader, r"per=pixel: expected channel or map"),
    (partial(CrossStitch, rate=0), Tiny, Reader, r"rate=0: expected a number above 0"),
    (partial(NDDRCNN, same=None), Tiny, Reader, r"expected two numbers or two nulls"),
    (FullSharing, Tiny, VectorHead, r"VectorHead has none to share\. Type a head of maps"),
    (FullSharing, Tiny, {"a": Reader, "b": SegReader}, r"head_of gives some of them one of their own"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused_with_what_can(make, backbone, head, message):
    with pytest.raises(ValueError, match=message):
        make(backbone=backbone, head=head, tasks=tasks_of("a", "b"))


@pytest.mark.parametrize("kind", WITHOUT)
def test_the_feature_level_is_refused_with_the_levels_that_work(kind):
    tasks = list(CHANNELS)
    for words, message in {
        "imtl": r"no single shared representation .* Type method\.level=parameter: IMTL works at feature, parameter",
        "gradnorm": r"Type method\.level=layer or method\.level=parameter: GradNorm works at layer, feature",
    }.items():
        method = config.build_method(config.load([f"method={words}", "method.level=feature"]).method, tasks)
        with pytest.raises(ValueError, match=message):
            check_level(method, made(kind))
    streamed = config.build_method(config.load(["method=pcgrad", "method.jacobian=streamed"]).method, tasks)
    with pytest.raises(ValueError, match=r"jacobian=streamed: .* Type method\.jacobian=whole"):
        check_level(streamed, made(kind))


# ---------------------------------------------------------------------------------------------- memory


def test_memory_is_estimated_and_too_little_is_warned_of(recwarn):
    model = made("cross_stitch").train()
    weights = sum(p.nbytes for p in model.parameters())
    saved: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model.eval()(torch.randn(1, 3, 16, 16).double())
    measured = sum(storage.nbytes() for number, storage in saved.items() if number not in own)
    assert outputs
    model.train()
    assert memories.maps(model, (3, 16, 16)) == pytest.approx(measured, rel=0.05)
    assert model.training
    method = config.build_method(config.load(["method=pcgrad"]).method, list(CHANNELS))
    found = memories.parts(model, method, torch.optim.Adam(model.parameters()), (3, 16, 16), 4)
    assert found["the optimizer"] == 2 * found["their gradients"] == 2 * weights
    assert found["the maps of 4 images"] == 4 * memories.maps(model, (3, 16, 16))
    shared = sum(p.nbytes for p in model.shared_parameters())
    assert found["the tasks' gradients (method.level=parameter)"] == 3 * shared
    memories.warn(found, 3, torch.device("cpu"))
    assert not [w for w in recwarn if "columns" in str(w.message)]
    with pytest.warns(UserWarning, match=r"3 columns need about 1e\+06 GB .* a smaller batch_size"):
        memories.warn({"weights": 10**15}, 3, torch.device("cpu"))
