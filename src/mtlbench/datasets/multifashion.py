"""MultiMNIST's construction from Fashion-MNIST's real images, and the mix of both sets.

Licence: Fashion-MNIST (Xiao et al. 2017, Zalando SE) is under the MIT licence. Debian and Ubuntu have it:
`apt-get install dataset-fashion-mnist` puts the four IDX files under /usr/share/datasets/fashion-mnist, where they are
found without being copied. Elsewhere they are read from <machine.data>/fashion-mnist, or from where torchvision puts
them: `torchvision.datasets.FashionMNIST("<machine.data>", download=True)`. The mix needs MNIST's own files as well, see
`datasets/multimnist.py`.

The files that the literature on Pareto fronts shares (Lin et al. 2019) keep the canvas of 36 x 36 and hold 120,000
training pairs; here, as in Sener & Koltun 2018, every image is the left one once, and pairs are brought to 28 x 28.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mtlbench.datasets.idx import FASHION, MNIST, Digits, read_digits
from mtlbench.datasets.multimnist import MultiMNIST, OverlaidDigits, Pairs, check_validation, hold_out, overlay

CLOTHES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
"""What the labels 0 to 9 of Fashion-MNIST are."""


class MultiFashion(MultiMNIST):
    """Pairs of Fashion-MNIST's images (60,000 for training, 10,000 for the test), two classifications of clothes.

    Options and parts are those of MultiMNIST. The normalisation is MNIST's too: the construction has one.
    """

    name = "multifashion"
    things = "images"
    files = FASHION
    words = MappingProxyType({"left": CLOTHES, "right": CLOTHES})


class MultiFashionMNIST(OverlaidDigits):
    """A digit and a piece of clothing in one image: "left" is what lies top-left, "right" bottom-right.

    first: which set is top-left, mnist or fashion. The shared files of Lin et al. 2019 do not say; in numbers printed
        for them the first task is far more accurate (98 % against 89 %), so that it is MNIST.
    validation: how many training images of either set are held out as the val part, before any are paired.
    Every image of the first set is used once; its partner is drawn uniformly from the same part of the other set.
    """

    name = "multifashionmnist"
    things = "images"
    official = MultiMNIST.official

    def __init__(
        self,
        folder: Path,
        seed: int,
        tasks: Sequence[str] | None,
        first: str,
        validation: int,
        construction_seed: int,
        stretch: bool,
    ):
        # allow_same: no image of one set is in the other
        super().__init__(folder, seed, tasks, construction_seed, stretch, allow_same=True)
        if first not in ("mnist", "fashion"):
            raise ValueError(f"dataset.first={first}: mnist or fashion is expected.")
        self.words = {"right" if first == "mnist" else "left": CLOTHES}
        self.sources = (MNIST, FASHION) if first == "mnist" else (FASHION, MNIST)
        self.validation = validation

    @cached_property
    def source(self) -> tuple[Digits, ...]:
        return tuple(read_digits(self.folder, prefix, s) for s in self.sources for prefix in ("train", "t10k"))

    def part(self, name: str) -> tuple[Digits, int]:
        """The images of one part of the first set, then of the second; how many pairs are made of them."""
        train, test, other_train, other_test = self.source
        pair = (test, other_test)
        if name != "test":
            check_validation(self.validation, min(len(train.labels), len(other_train.labels)), self.things)
            chosen = {"train": 0, "val": 1}[name]
            rngs = [self.rng(f"held out of {source.name}") for source in self.sources]
            pair = [
                hold_out(d, self.validation, rng)[chosen] for d, rng in zip((train, other_train), rngs, strict=True)
            ]
        both = Digits(*(np.concatenate(arrays) for arrays in zip(*pair, strict=True)))
        return both, len(pair[0].labels)

    def split(self, name: str) -> Pairs | None:
        both, count = self.part(name)
        if count == 0:
            return None
        left = np.arange(count)
        right = self.rng(f"pairs of {name}").integers(count, len(both.labels), count)
        targets = {"left": both.labels[left], "right": both.labels[right]}
        return Pairs(overlay(both.images, left, right, self.stretch), {task: targets[task] for task in self.tasks})
