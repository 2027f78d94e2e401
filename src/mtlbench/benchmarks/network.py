"""What the suite's way of assembling a network costs. `python -m mtlbench.bench network`

Forward and backward pass of the summed losses, and a whole step of method=equal, beside the same modules called in a
plain loop; of DeepLabV3+ also beside segmentation-models-pytorch's own network, an encoder shared by as many of its
decoders. Keys are in conf/bench_network.yaml.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mtlbench import build, parallel
from mtlbench import config as configuration
from mtlbench.benchmarks import table, workload
from mtlbench.benchmarks.files import cell, save
from mtlbench.benchmarks.table import Cost
from mtlbench.benchmarks.training import Trainer, Training, compare
from mtlbench.fit import PRECISIONS
from mtlbench.parallel import Ranks


class Passes(Training):
    """The summed losses of `predictions`, differentiated. update: whether `seconds` times the optimizer as well."""

    level = "loss"

    def __init__(self, config: DictConfig, ranks: Ranks, update: bool = False):
        super().__init__(config, ranks)
        self.optimize([])
        if not update:
            self.optimizer.step = lambda: None

    def predictions(self, image: Tensor) -> Mapping[str, Tensor]:
        return self.model(image)

    def gradients(self) -> None:
        self.optimizer.zero_grad()
        counts = self.counts()
        with self.precision():
            predictions = self.predictions(self.data[0])
        torch.stack([self.loss(name, predictions[name], counts[name]) for name in self.tasks]).sum().backward()


class Loop(Passes):
    """The network's own modules, called one by one."""

    def predictions(self, image: Tensor) -> Mapping[str, Tensor]:
        features = self.model.backbone(image)
        return {name: self.model.head(name)(features, tuple(image.shape[-2:])) for name in self.tasks}


class Library(Passes):
    """segmentation-models-pytorch's DeepLabV3+ with our weights: one encoder, its decoder and head for each task."""

    def __init__(self, config: DictConfig, ranks: Ranks, update: bool = False):
        super().__init__(config, ranks, update)
        self.networks = nn.ModuleDict()
        for name in self.tasks:
            head = self.model.head(name)
            network = smp.DeepLabV3Plus(
                f"tu-{config.backbone.name}",
                encoder_weights=None,
                encoder_output_stride=config.backbone.output_stride,
                decoder_channels=config.head.hidden,
                decoder_atrous_rates=tuple(config.head.rates),
                decoder_aspp_separable=config.head.separable,
                decoder_aspp_dropout=config.head.dropout,
                classes=head.predict.out_channels,
            ).to(self.data[0])
            network.decoder.load_state_dict(head.decoder.state_dict())
            network.segmentation_head[0].load_state_dict(head.predict.state_dict())
            self.networks[name] = network.train()
        self.encoder = self.networks[next(iter(self.tasks))].encoder
        self.encoder.model.load_state_dict(self.model.backbone.network.state_dict())
        self.model = nn.ModuleList([self.encoder, *(m for n in self.networks.values() for m in list(n.children())[1:])])
        self.optimize([])

    def predictions(self, image: Tensor) -> Mapping[str, Tensor]:
        features = self.encoder(image)
        return {name: n.segmentation_head(n.decoder(features)) for name, n in self.networks.items()}


LOOP, LIBRARY = "the same modules in a plain loop", f"segmentation-models-pytorch {smp.__version__}"


def comparisons(config: DictConfig, ranks: Ranks) -> dict[tuple[str, str], tuple[Training, Training]]:
    """{(what, beside what): both}. Raises ValueError for a network whose modules a plain loop cannot call."""
    kind = config.architecture._target_.rpartition(".")[2]
    if kind != "MultiDecoder":
        raise ValueError(f"architecture: {kind}: a loop needs architecture=multi_decoder.")
    ours = Passes(config, ranks)
    found = {
        ("forward and backward", LOOP): (ours, Loop(config, ranks)),
        ("step of method=equal", LOOP): (Trainer(config, ranks), Loop(config, ranks, update=True)),
    }
    if config.head._target_.rpartition(".")[2] == "DeepLabV3Plus":
        found["forward and backward", LIBRARY] = (ours, Library(config, ranks))
    return found


def bench_network(overrides: Sequence[str]) -> str:
    """Measures, prints and writes the table."""
    config, choices = configuration.load_run(overrides, name="bench_network")
    if config.pairs < 2 or config.warm_up < 1 or config.batch_size < 1:
        raise ValueError(
            f"pairs={config.pairs} warm_up={config.warm_up} batch_size={config.batch_size}: expected at least 2 pairs, "
            f"1 pass of warming up and 1 image."
        )
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision={config.precision}: expected {', '.join(PRECISIONS)}.")
    ranks = parallel.start(config.machine.device)
    if ranks.size > 1:
        raise ValueError("mtlbench.bench network measures one process: start it without torchrun.")
    build.prepare(config.machine)
    facts = table.machine(ranks.device)
    rows = []
    for (what, beside), (one, other) in comparisons(config, ranks).items():
        times = compare(one, other, config.pairs, config.warm_up)
        one.check(), other.check()
        lower, middle, upper = statistics.quantiles([a / b for a, b in times], n=4, method="inclusive")
        mine, its = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append(Cost(beside, what, "loss", len(times), mine, its, middle, lower, upper))
        print(f"{what}: {middle:.3f} x {beside}", flush=True)
    described = f"{choices['architecture']}, {choices['backbone']} + {choices['head']}, {workload.described(config)}"
    text = report(rows, facts, described)
    save(rows, text, facts["device"], f"network_{choices['workload']}", Path(config.folder))
    print(f"\n{text}\nfiles in {config.folder}")
    return "done"


def report(rows: Sequence[Cost], facts: Mapping[str, str], described: str) -> str:
    lines = [
        "# Cost of the assembled network over its modules called by hand",
        "",
        f"{described}. Each ratio is of two passes side by side; given are the median and the quartiles over pairs.",
        "",
        "| mtlbench | beside | ratio | quartiles | mtlbench | beside | pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.method} | {cell(row.who)} | {row.ratio:.3f} | {row.ratio_lower:.3f} to {row.ratio_upper:.3f} "
            f"| {1000 * row.seconds:.0f} ms | {1000 * row.baseline_seconds:.0f} ms | {row.pairs} |"
        )
    return "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in facts.items())]) + "\n"
