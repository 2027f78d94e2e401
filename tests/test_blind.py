"""The prediction that ignores the image, on targets small enough to work out by hand."""

import math

import pytest
import torch

from mtlbench.blind import blind_metrics, blind_prediction
from mtlbench.dataset import MultiTaskDataset, Split
from mtlbench.losses import L1, CrossEntropy
from mtlbench.metrics import Accuracy, Confusion, MeanAbsoluteError
from mtlbench.task import IGNORE, Task

NAN = math.nan


class Listed(Split):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, key):
        return torch.zeros(1, 1, 2), self.items[key[1]]


class Tiny(MultiTaskDataset):
    def __init__(self):
        self.tasks = {
            "map": Task("map", 3, CrossEntropy(), [Confusion(3)]),
            "depth": Task("depth", 1, L1(), [MeanAbsoluteError("m")]),
            "kind": Task("kind", 2, CrossEntropy(), [Accuracy()], "vector"),
        }

    def split(self, name):
        return None

    def fingerprint(self):
        return "tiny"


def item(classes, depth, kind):
    return {
        "map": torch.tensor([classes]),
        "depth": torch.tensor([[depth]]),
        "kind": torch.tensor(kind),
    }


TRAIN = Listed(
    [
        item([2, IGNORE], [1.0, NAN], 1),
        item([2, 1], [2.0, NAN], 1),
        item([0, IGNORE], [9.0, NAN], IGNORE),
    ]
)


def test_majority_and_median_at_each_pixel():
    prediction = blind_prediction(TRAIN, {"map": 3, "depth": 1, "kind": 2})
    assert prediction["map"].argmax(1).tolist() == [[[2, 1]]]
    assert prediction["depth"].tolist() == [[[[2.0, 2.0]]]]  # never measured at the second pixel: the overall median
    assert prediction["kind"].argmax(1).tolist() == [1]


def test_its_metrics():
    prediction = blind_prediction(TRAIN, {"map": 3, "depth": 1, "kind": 2})
    test = Listed([item([2, 2], [3.0, 0.5], 1), item([IGNORE, 1], [NAN, 2.0], 0)])
    found = blind_metrics(Tiny(), prediction, test)
    assert found["map/pixel_accuracy"] == pytest.approx(200 / 3)
    assert found["map/miou"] == 50.0  # classes 1 and 2, one half each; class 0 occurs nowhere
    assert found["depth/l1"] == (1.0 + 1.5 + 0.0) / 3
    assert found["kind/accuracy"] == 50.0
