"""Equal weighting."""

from mtlbench.weighting import Weighting


class Equal(Weighting):
    """The sum of the losses, every weight 1: uniform scaling. Sum of weights: T.

    With one task it is single-task training.
    """
