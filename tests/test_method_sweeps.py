"""The sweeps over methods leave none out: a new yaml under conf/method belongs into them."""

from pathlib import Path

import yaml

from drill import build
from mtlbench import config
from mtlbench.weighting import overrides

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
METHODS = set(config.options("method")) - {"hybrid"}


def params(sweep: str) -> dict[str, str]:
    return yaml.safe_load((SWEEPS / sweep / "methods.yaml").read_text())["hydra"]["sweeper"]["params"]


def listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def balances(*changed: str) -> set[str]:
    """The methods that override one of these parts of the protocol; what has both halves is a composition already."""
    return {name for name in METHODS - {"imtl"} if any(overrides(build(name), part) for part in changed)}


def test_all_methods_are_in_the_sweep_over_all():
    assert sorted(listed(params("all_methods_multidigits")["method"])) == sorted(METHODS)


def test_the_product_is_of_all_balances():
    gradient, loss = balances("weights", "combine"), METHODS - {"imtl"} - balances("weights", "combine")
    assert gradient & {"mgda", "imtl_g", "graddrop"}
    assert loss & {"equal", "uncertainty", "famo"}
    product = params("product")
    assert sorted(listed(product["method@method.gradient"])) == sorted(gradient)
    assert sorted(listed(product["method@method.loss"])) == sorted(loss)
