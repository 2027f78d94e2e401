"""Task gradients by length and direction: solvers work on the cosines, so lengths far apart do no harm."""

import numpy as np
from torch import Tensor


def lengths_and_cosines(gramian: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths [T], which of them are not zero [T], and the cosines [A, A] of those, from a Gramian [T, T]."""
    inner = gramian.numpy()
    lengths = np.sqrt(np.diagonal(inner))
    alive = lengths > 0
    among = inner[np.ix_(alive, alive)] / lengths[alive] / lengths[alive][:, None]
    np.fill_diagonal(among, 1.0)
    return lengths, alive, among
