"""The files of the study on the small network: table.md to read, three csv, the figures."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtlbench.aggregation.tables import Cell, Table, markdown
from mtlbench.analysis import loss_scale_figures
from mtlbench.analysis.loss_scale_network import MULTIPLES, PARTS, Difference, Setting
from mtlbench.analysis.loss_scale_study import NAMES, Case, Study, powers_of_two

ROUNDING = 1e-12
"""Differences below are those of float64's rounding."""

SETTING = """# Adam and the scale of the losses

Written by `python -m mtlbench.analysis.loss_scale`; not to be edited.

Elich et al. 2023 (A1.3, A2): multiply the loss of task t by alpha. In Adam's m the gradient of a parameter that only
task t reaches is multiplied by alpha, in v by its square, and the step m / sqrt(v) stays (Eqs. 18-21), **if** eps is 0
and the backbone stands still. Shared parameters see the sum of alpha_t g_t: one factor for all losses cancels,
different ones do not (Eqs. 22-23). With one Adam for each task on all parameters, their steps added, everything
cancels. SGD has none of this.

Here: {samples} inputs uniform in [0, 1), targets {multiples} times the input, a backbone of two layers and two heads of
two layers, {width} wide, LeakyReLU {slope:g}, L1, {steps} full batches in float64, lr {lr:g}, momentum {momentum:g} of
SGD, seed {seed}. Scales: {scales}. UW-O: optimal uncertainty weighting, each loss over its own value. With a frozen
backbone an Adam for each task is one Adam.

The numbers are the largest over the steps from the second on (in Adam's first step every coordinate moves by lr,
whatever the gradient, if eps is 0: nothing to see there).

- *length*: of the update of a part, relative to the plain run's. This is what the paper draws.
- *update*: of the difference of the two updates, relative to the plain one; 2 is the opposite direction.
- *exact*: with powers of two ({powers}), which round no product, both runs are the same to the last bit.
- "< 1e-12" is rounding."""

READING = """## Reading it

- The paper's text and captions scale by 10 and 0.1, its list of experiments by 10 and 0.01 (and names tasks of other
  data there); here 10 and 0.1 are the default. Learning rate, range of the inputs, multiples, number of samples, batch
  and slope are not printed: ours.
- Where *exact* is yes, the invariance is one of the formulas. A number above 1e-12 beside it is rounding that grew: the
  sign of an L1 residual, or with betas of 0 that of a gradient that is nothing but rounding, turned over.
- Slips in the paper: Eq. 23 has beta1 where v needs beta2; Eq. 21 has psi_(i-1) on its left and no alpha in its first
  line; a caption says "revoke" where the invariance is restored."""

BETAS = """The paper (before A2) announces evidence that "Adam offers loss-scale invariance for all network parameters
(backbone and heads) if beta_1,2 = 0"; none of its experiments is about it. With betas of 0 the step is lr times the
sign of sum_t alpha_t g_t. A common scale turns no sign; different scales do where two tasks disagree: g = (1, -2) moves
a coordinate by -lr times the sign of -1 with scales (1, 1), and of 9.8 with (10, 0.1). With one Adam for each task the
claim holds in the formulas, though not in floating point: only scales that round nothing leave every sign."""

TURNED = """Here {turned:.0f} % of the backbone's coordinates go another way in the first step. The length of the
update, which the paper records, does not show it: it is lr sqrt(n) either way, but for gradients of exactly 0."""

EPS = (
    "Of the last step, along the gradients of the plain run, which both steps are given. formula: (sqrt(v) + eps) / "
    "(sqrt(v) + eps / alpha) - 1, about eps (1 - 1/alpha) / sqrt(v) for small eps. torch less formula: the largest "
    "difference over all steps.",
    "So eps is slight where sqrt(v) is far above it in both runs. A mean over samples has coordinates where it is not, "
    "and a small loss, alpha below 1, brings it near: what counts there is eps / alpha. What moved differently has "
    "other gradients afterwards, and an L1 residual of the other sign is a jump. With eps far above sqrt(v) Adam is "
    "SGD, and the scale a learning rate.",
)

FIRST = (
    "SGD moves each head by its scale times as much, as the paper says (its text has 0.01 for the second). That Adam's "
    "heads agree in the first step tells nothing about them: so does its backbone, where the invariance does not hold. "
    "At eps 0 each of n coordinates moves by lr: the length is lr sqrt(n) whatever the directions."
)

METHODS = (
    "Each method as its yaml gives it, {steps} steps; what a method learns is moved by the run's optimizer. Methods "
    "that begin at weights of their own, or at the first losses, are invariant only at rest or later on, as their "
    "docstrings say: not in these first steps. Where a method makes the shared update alone invariant, as Nash-MTL, "
    "SGD still scales the heads, and through them the next gradients; Adam does not, and the whole is invariant. Where "
    "it keeps the direction and not the length, as IMTL-G, Adam forgets a constant factor but not one that changes "
    "from step to step.{product}"
)


def number(value: float) -> str:
    """Two digits; what is rounding is said to be."""
    if math.isnan(value):
        return "-"
    return "0" if value == 0 else "< 1e-12" if value < ROUNDING else f"{value:.2g}"


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Five digits; nothing for what is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        values = [None if isinstance(v, float) and math.isnan(v) else v for v in row]
        writer.writerow([f"{v:.5g}" if isinstance(v, float) else "" if v is None else v for v in values])
    return text.getvalue()


def files(study: Study, base: Setting, eps: float, figures: bool) -> dict[str, str]:
    """{name: content}. Same numbers, same bytes."""
    made = {"table.md": page(study, base, eps), "differences.csv": _differences(study), "steps.csv": _steps(study)}
    if study.methods:
        made["methods.csv"] = _methods(study)
    if figures:
        for name, cases in (("frozen", study.frozen), ("trained", study.trained)):
            made[f"{name}.svg"] = loss_scale_figures.lines(
                cases, f"Updates with plain and scaled losses, backbone {name}"
            )
        if study.effects and eps:
            made["epsilon.svg"] = loss_scale_figures.epsilon(study.effects, study.scales, eps)
    return made


def page(study: Study, base: Setting, eps: float) -> str:
    def listed(values: dict[str, float]) -> str:
        return ", ".join(f"{name} x {value:g}" for name, value in values.items())

    head = SETTING.format(
        **{key: getattr(base, key) for key in ("samples", "width", "slope", "steps", "lr", "momentum", "seed")},
        multiples=" and ".join(f"{m:g}" for m in MULTIPLES.values()),
        scales=listed(study.scales),
        powers=listed(powers_of_two(study.scales)),
    )
    parts = [head, _cases("Frozen backbone: only the heads are updated (Figure A1)", study.frozen, tuple(MULTIPLES))]
    parts.append(_cases("Everything is trained (Figure A2)", study.trained, PARTS))
    parts.append(_cases(f"All losses by one scale, {max(study.scales.values()):g}", study.common, PARTS))
    parts.append(_first(study))
    if study.epsilon:
        parts.append(_epsilon(study, eps))
    if study.bare:
        parts.append(_bare(study))
    if study.methods:
        parts.append(_of_methods(study))
    return "\n".join(part.rstrip("\n") + "\n" for part in [*parts, READING])


def _cases(title: str, cases: Sequence[Case], parts: Sequence[str]) -> str:
    head = [f"{part} {what}" for part in parts for what in ("length", "update")]
    table = Table(title, [], ["optimizer", *head, "exact"])
    for case in cases:
        found = case.differences
        texts = [number(value) for part in parts for value in (found[part].norm, found[part].update)]
        problem = case.plain.problem or case.scaled.problem
        table.rows.append([Cell(t) for t in (case.name, *texts, problem or ("yes" if case.exact else "no"))])
    return markdown(table, 2)


def _first(study: Study) -> str:
    table = Table("The first step: the scaled update's length over the plain one's", [], ["optimizer", *PARTS])
    for case in study.trained:
        table.rows.append([Cell(case.name), *(Cell(f"{case.differences[part].first:.4g}") for part in PARTS)])
    table.legend = [FIRST]
    return markdown(table, 2)


def _epsilon(study: Study, eps: float) -> str:
    table = Table("The effect of eps: Adam, frozen backbone", [], ["eps"])
    table.head += [f"{part} {what}" for part in MULTIPLES for what in ("length", "update")]
    for value, found in study.epsilon.items():
        texts = [number(one) for part in MULTIPLES for one in (found[part].norm, found[part].update)]
        table.rows.append([Cell(t) for t in (f"{value:g}", *texts)])
    grid = Table(f"Why: the steps of single coordinates at eps {eps:g}", [], ["head"])
    grid.head += [
        "sqrt(v): a tenth below",
        "half below",
        "changed by more than 1 %",
        "largest change",
        "torch less formula",
    ]
    for part, effect in study.effects.items():
        last, moved = effect.roots[-1], abs(effect.measured[-1])
        texts = [
            f"{np.quantile(last, 0.1):.2g}",
            f"{np.quantile(last, 0.5):.2g}",
            f"{100 * (moved > 0.01).mean():.1f} %",
        ]
        apart = float(abs(effect.measured - effect.predicted).max())
        grid.rows.append([Cell(t) for t in (part, *texts, number(float(moved.max())), number(apart))])
    grid.legend = list(EPS)
    return markdown(table, 2) + "\n" + markdown(grid, 3)


def _bare(study: Study) -> str:
    cases = _cases("A printed claim that does not hold: betas of 0, eps 0", study.bare, PARTS)
    return "\n".join([cases, BETAS, *[TURNED.format(turned=100 * study.turned)] * bool(study.turned)])


def _of_methods(study: Study) -> str:
    optimizers = list(dict.fromkeys(method.optimizer for method in study.methods))
    names = [NAMES[key] + ", eps 0" * (key != "sgd") for key in optimizers]
    table = Table("Every method of the suite: update, everything trained", [], ["method"])
    table.head += [f"{name}: {part}" for name in names for part in PARTS]
    table.head.append("its docstring on the losses' scales")
    for name in dict.fromkeys(method.name for method in study.methods):
        texts, said = [name], ""
        for method in (m for m in study.methods if m.name == name):
            said = method.said
            texts += [_update(method.differences[part], method.problem) for part in PARTS]
        table.rows.append([Cell(text) for text in (*texts, said)])
    table.legend = [METHODS.format(steps=study.methods[0].steps, product=_product(study.scales))]
    return markdown(table, 2)


def _product(scales: dict[str, float]) -> str:
    """GLS is invariant to scales whose product is 1."""
    return (
        " The product of these scales is 1: GLS keeps the length too."
        if math.isclose(math.prod(scales.values()), 1)
        else ""
    )


def _update(difference: Difference, problem: str) -> str:
    return f"stopped: {problem}" if problem and math.isnan(difference.update) else number(difference.update)


def _differences(study: Study) -> str:
    groups = {"frozen": study.frozen, "trained": study.trained, "one scale": study.common, "betas 0": study.bare}
    rows = [
        [group, case.name, part, d.norm, d.update, d.first, case.exact]
        for group, cases in groups.items()
        for case in cases
        for part, d in case.differences.items()
    ]
    rows += [
        ["eps", f"Adam, eps {eps:g}", part, d.norm, d.update, d.first, None]
        for eps, found in study.epsilon.items()
        for part, d in found.items()
    ]
    return csv_text(["group", "case", "part", "length", "update", "first", "exact"], rows)


def _steps(study: Study) -> str:
    """Each step of the runs in the figures: losses, lengths of gradients and updates."""
    rows = []
    for group, cases in (("frozen", study.frozen), ("trained", study.trained)):
        for case in cases:
            for losses, run in (("plain", case.plain), ("scaled", case.scaled)):
                gradients = run.gradients or {part: np.full((len(run.losses), 1), np.nan) for part in PARTS}
                lengths = [np.linalg.norm(of[part], axis=1) for of in (gradients, run.updates) for part in PARTS]
                for k, values in enumerate(np.column_stack([run.losses, *lengths]).tolist(), start=1):
                    rows.append([group, case.name, losses, k, *values])
    head = [f"{what} {part}" for what in ("gradient", "update") for part in PARTS]
    return csv_text(["backbone", "case", "losses", "step", *(f"loss {name}" for name in MULTIPLES), *head], rows)


def _methods(study: Study) -> str:
    rows = [
        [method.name, method.optimizer, part, d.norm, d.update, method.problem]
        for method in study.methods
        for part, d in method.differences.items()
    ]
    return csv_text(["method", "optimizer", "part", "length", "update", "problem"], rows)
