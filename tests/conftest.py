"""Shared by all tests: one thread (bits repeat), and no Hydra state from one test to the next."""

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_hydra():
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()
