"""IMTL: impartial multi-task learning (Liu et al., ICLR 2021)."""

import math
from collections.abc import Sequence
from typing import ClassVar

from mtlbench.methods.hybrid import Hybrid
from mtlbench.methods.imtl_g import IMTLG
from mtlbench.methods.imtl_l import IMTLL
from mtlbench.weighting import Level


class IMTL(Hybrid):
    """IMTL-L, then IMTL-G on the scaled losses (Liu et al. 2021, Section 3.3, Algorithm 1).

    M_t = b a^{s_t} L_t - s_t; heads and s get the gradient of sum_t M_t, shared parameters that of
    sum_t alpha_t M_t with alpha from IMTL-G on the gradients of M. Level: feature (Algorithm 1) or parameter.
    Touches shared parameters with alpha (IMTL-G) and everything with b a^{s_t} (IMTL-L). Sum of weights: 1 for alpha;
    what multiplies a raw shared gradient is alpha_t b a^{s_t}. Invariance to the losses' scales: of the direction in
    which shared parameters move (Theorem 2, as IMTL-G), and of heads' gradients where s is at rest. One task: b a^s
    times its gradient, as IMTL-L. A zero gradient: as IMTL-G. Raises ValueError as IMTL-L.
    """

    levels: ClassVar[tuple[Level, ...]] = IMTLG.levels

    def __init__(self, tasks: Sequence[str], a: float = math.e, b: float = 1.0, level: Level | None = None):
        super().__init__(tasks, IMTLL(tasks, a, b), IMTLG(tasks, level))
