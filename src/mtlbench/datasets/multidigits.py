"""MultiMNIST's construction from the real digits that scikit-learn carries: nothing to download.

Licence: Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), of the UCI repository, is under CC BY 4.0.
"""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from mtlbench.datasets.idx import SIDE, Digits
from mtlbench.datasets.multimnist import OverlaidDigits, hold_out


class MultiDigits(OverlaidDigits):
    """Pairs of the 1,797 handwritten digits of sklearn.datasets.load_digits (UCI Optical Recognition of
    Handwritten Digits, test part: 13 writers, 8 x 8 pixels of 0 to 16).

    Digits are enlarged by bilinear interpolation to 20 x 20 in the middle of 28 x 28, MNIST's own layout. They are
    divided into parts, each class in its share, before any are paired; there are many more pairs than digits, so
    each digit is the left one several times, with other partners. Writers are not named in the data, so the
    same hand is found in all parts.

    val_digits, test_digits: held out of 1,797, the rest trains; 0: no such part.
    train_pairs, val_pairs, test_pairs: how many images are made of them.
    """

    name = "multidigits"

    def __init__(
        self,
        *,
        val_digits: int,
        test_digits: int,
        train_pairs: int,
        val_pairs: int,
        test_pairs: int,
        **options: object,
    ):
        super().__init__(**options)
        self.held = {"val": val_digits, "test": test_digits}
        self.pairs = {
            "train": train_pairs,
            "val": val_pairs if val_digits else 0,
            "test": test_pairs if test_digits else 0,
        }
        for part, count in self.pairs.items():
            least = 1 if part == "train" else 0
            if count < least:
                raise ValueError(f"dataset.{part}_pairs={count}: expected {least} or more.")

    @cached_property
    def source(self) -> tuple[Digits, ...]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ValueError("multidigits needs scikit-learn. Type: pip install scikit-learn") from error
        digits = load_digits()
        return (Digits(enlarge(digits.images), digits.target),)

    @cached_property
    def parts(self) -> dict[str, Digits]:
        (everything,) = self.source
        if min(self.held.values()) < 0 or sum(self.held.values()) >= len(everything.labels):
            raise ValueError(
                f"dataset.val_digits={self.held['val']} dataset.test_digits={self.held['test']}: there are "
                f"{len(everything.labels):,} digits, and some must be left for training."
            )
        rest, test = hold_out(everything, self.held["test"], self.rng("test digits"))
        train, val = hold_out(rest, self.held["val"], self.rng("val digits"))
        return {"train": train, "val": val, "test": test}

    def part(self, name: str) -> tuple[Digits, int]:
        return self.parts[name], self.pairs[name]


def enlarge(images: np.ndarray) -> np.ndarray:
    """[N, 8, 8] of 0 to 16 to [N, 28, 28] uint8 of 0 to 255."""
    margin = (SIDE - 20) // 2
    large = F.interpolate(torch.from_numpy(images)[:, None], size=(20, 20), mode="bilinear", align_corners=False)
    return F.pad((large[:, 0] * (255 / 16)).round().to(torch.uint8), [margin] * 4).numpy()
