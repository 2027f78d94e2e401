"""The ids of methods in the printed tables (results/papers/*.csv), and what each is on the command line."""

from collections.abc import Iterable, Mapping
from typing import Any

OVERRIDES: dict[str, dict[str, Any]] = {
    "mgda_ub": {"method": "mgda", "method.level": "feature"},
    "imtl_g_exact": {"method": "imtl_g", "method.level": "parameter"},
    "gradnorm_gamma0": {"method": "gradnorm", "method.gamma": 0},
    # where architectures are compared, their losses are summed
    "mtl_baseline": {"method": "equal", "architecture": "multi_decoder"},
    "mtan": {"method": "equal", "architecture": "mtan"},
    "cross_stitch": {"method": "equal", "architecture": "cross_stitch"},
    "nddr_cnn": {"method": "equal", "architecture": "nddr_cnn"},
}
"""Every other id is the method of that name, whatever its options."""

NETWORKS = (
    *("branched_1", "branched_2", "branched_3", "fafs_1", "fafs_2", "fafs_3"),
    *("jtrl", "pap_net", "pad_net", "mti_net"),
)
"""Ids in tables of our sweeps of networks that no option builds."""

NO_METHOD = ("single_task", "all")
"""Ids of rows that are no multi-task method: the baselines, and what is said of all methods together."""


def overrides(id: str) -> dict[str, Any]:
    """{group or key: option or value} of a printed id. Raises ValueError for one that is none of ours."""
    if id in (*NETWORKS, *NO_METHOD):
        raise ValueError(f"{id}: no method of ours.")
    return OVERRIDES.get(id, {"method": id})


def id_of(said: Mapping[str, Any], ids: Iterable[str]) -> str | None:
    """Which of `ids` a row is, of those that agree the one that says most about it.

    said: every key and group of the row. Two ids of one table never say equally much of one row.
    """
    found = [id for id in set(ids) - {*NETWORKS, *NO_METHOD} if overrides(id).items() <= said.items()]
    return max(found, key=lambda id: (len(overrides(id)), id), default=None)
