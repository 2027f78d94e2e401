"""The tables below the main one: how rows were chosen, equal budgets, Pareto counts, intervals and tests."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation import inference, pareto
from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.presentation import DASH, FORMS, number, table
from mtlbench.aggregation.rows import Row
from mtlbench.aggregation.selection import OPTIMISTIC, SCORES
from mtlbench.aggregation.tables import Cell, Table

ALL_PAIRS = 12
"""Rows up to which every two are compared; of more, each with the first."""

BUDGETS = 40
"""Budgets up to which each has a line; of more 1, 2, 5, 10 ..."""


def sections(comparison: Comparison) -> list[Table]:
    """Whatever of these tables says something about the comparison."""
    found = [selection(comparison)]
    if comparison.by_optimizer:
        found.append(table(comparison, comparison.by_optimizer, "The best setting of each optimizer"))
    if comparison.searched:
        found += budget(comparison)
    found.append(pareto.table(comparison))
    if any(len(row.done) > 1 for row in comparison.rows):
        found += [intervals(comparison), tests(comparison)]
    return found


def every(comparison: Comparison) -> Table:
    """All settings, as the main table has the chosen ones."""
    return table(comparison, comparison.settings, f"{comparison.title}: every setting")


def selection(comparison: Comparison) -> Table:
    """What was chosen, out of how many, and what choosing epochs on the test part would add."""
    form, optimistic = comparison.rules.form, comparison.rules.select == OPTIMISTIC
    head = [
        "method",
        "setting",
        "tried",
        "finished",
        f"validation {FORMS[form]}",
        f"test {FORMS[form]}",
        "optimism [%]",
    ]
    grid = Table("How the rows were chosen", [], head)
    for row in comparison.single.values():
        shown = [row.label, row.setting or "-", str(row.tried), str(row.finished), "-", "-", number(row.optimism, 2)]
        grid.rows.append([Cell(text) for text in shown])
    for row in comparison.rows:
        test = row.deltas[form]
        numbers = [row.validation, test.mean() if len(test) else math.nan, row.optimism]
        texts = [row.label, row.setting or "-", str(row.tried), str(row.finished), *(number(n, 2) for n in numbers)]
        grid.rows.append([Cell(text) for text in texts])
    grid.legend = [
        "tried: settings of which this is one; finished: those whose seeds are all done, with a validation Δm. Methods "
        "with more settings win by search alone: see the budgets.",
        "optimism: by how many points the row's test Δm would be better if each run's epoch were chosen on the test "
        "part, as some libraries do"
        + ("; the numbers of this table ARE chosen so." if optimistic else "; no number of this table is."),
    ]
    return grid


def budgets(rows: Sequence[Row], form: str) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Of the settings of one method: the expected validation and test Delta_m of the best of k [K], k = 1..K, and how
    many of the K gave nothing. Settings that are not finished yet are no part."""
    turn = 1 if stats.DELTA_M[form] == "higher is better" else -1
    good = [row for row in rows if row.state == "finished" and not math.isnan(row.validation)]
    failed = sum(row.state != "unfinished" for row in rows) - len(good)
    scores = np.array([turn * row.validation for row in good])
    test = np.array([row.deltas[form].mean() if len(row.deltas[form]) else math.nan for row in good])
    return turn * inference.expected_best(scores, failed), inference.expected_best(scores, failed, test), failed


def budget(comparison: Comparison) -> list[Table]:
    """The equal-budget view: validation Delta_m of the best of k settings, and the test Delta_m of that setting."""
    form = comparison.rules.form
    groups = groups_of(comparison)
    found = {label: budgets(rows, form) for label, rows in groups.items()}
    largest = max((len(validation) for validation, _, _ in found.values()), default=0)
    if largest < 2:
        return []
    every = range(1, largest + 1)
    ks = every if largest <= BUDGETS else [k for k in every if k in _round_numbers(largest)]
    lost = [f"{label} {failed} of {len(v)}" for label, (v, _, failed) in found.items() if failed]
    tables = []
    for place, split in enumerate(("validation", "test")):
        title = f"Equal budgets: {split} {FORMS[form]} of the best of k settings"
        grid = Table(title, [], ["k", *found])
        for k in ks:
            values = [one[place][k - 1] if k <= len(one[place]) else math.nan for one in found.values()]
            grid.rows.append([Cell(str(k)), *(Cell(number(value, 2)) for value in values)])
        tables.append(grid)
    tables[0].legend = [
        "Expected over k settings drawn at random without replacement, each of the method's settings as likely "
        "(Dodge et al. 2019; exact). Compare methods in a line: there they had the same budget. The test numbers are "
        "those of the setting that validation chooses."
    ]
    if lost:
        tables[0].legend.append(f"Settings that diverged or failed are drawn too, and lose: {', '.join(lost)}.")
    return tables


def _round_numbers(largest: int) -> set[int]:
    return {k * 10**power for power in range(9) for k in (1, 2, 5)} | {largest}


def groups_of(comparison: Comparison) -> dict[str, list[Row]]:
    """The settings of each row."""
    found: dict[str, list[Row]] = {}
    for row in comparison.settings:
        found.setdefault(row.group or row.label, []).append(row)
    return found


def intervals(comparison: Comparison) -> Table:
    """95 % intervals over seeds of each row's Delta_m: bootstrap and Student's."""
    head = ["method", *(f"{text}, {kind}" for text in FORMS.values() for kind in ("bootstrap", "Student"))]
    result = Table("95 % intervals of Δm", [], [*head, "seeds"])
    few = min((len(row.done) for row in comparison.rows), default=0) < inference.ENOUGH
    result.notes = [
        "Over seeds. bootstrap: percentiles of the mean over resampled seeds, single_task's runs of a seed among them "
        f"where it has the row's seeds{'; with so few it is too narrow' * few}. Student: t over the row's seeds, the "
        "spread of single_task is not in it."
    ]
    for row in comparison.rows:
        cells = []
        for form in FORMS:
            delta = row.deltas[form]
            pair = (bootstrap(comparison, row, form), stats.t_interval(delta) if len(delta) else (math.nan, math.nan))
            cells += [_interval(delta, *ends) for ends in pair]
        result.rows.append([Cell(row.label), *cells, Cell(str(len(row.done)))])
    return result


def _interval(delta: NDArray[np.float64], low: float, high: float) -> Cell:
    if not len(delta) or math.isnan(low):
        return DASH
    return Cell(f"{number(delta.mean(), 2)} in [{number(low, 2)}, {number(high, 2)}]")


def bootstrap(comparison: Comparison, row: Row, form: str) -> tuple[float, float]:
    """Interval of the mean Delta_m over seeds; the baselines are resampled with the row where they have its seeds."""
    if len(row.deltas[form]) < 2:
        return math.nan, math.nan
    metrics = list(comparison.metrics)
    values = row.values(metrics)
    single = [comparison.single[name.partition("/")[0]] for name in metrics]
    together = all(one.seeds == row.seeds for one in single)
    columns = [one.values([name])[:, 0] for one, name in zip(single, metrics, strict=True)]
    groups = [name.partition("/")[0] for name in metrics]

    def statistic(places: NDArray[np.intp]) -> NDArray[np.float64]:
        if not together:
            return row.deltas[form][places].mean(1)
        base = np.stack([column[places].mean(1) for column in columns], 1)
        means = values[places].mean(1)  # Delta_m is linear in the values: the mean of it is it of the mean
        safe = np.where(base > 0, base, math.nan)
        told = ~np.isnan(safe).any(1)
        return stats.delta_m(means[told], safe[told], comparison.higher, groups, form)

    return inference.bootstrap_interval(statistic, len(row.done))


def tests(comparison: Comparison) -> Table:
    """Paired by seed: the difference of Delta_m of two rows, how likely the first is better, p where n allows it."""
    form = comparison.rules.form
    rows = [row for row in comparison.rows if len(row.deltas[form]) > 1]
    pairs = list(itertools.combinations(rows, 2)) if len(rows) <= ALL_PAIRS else [(rows[0], row) for row in rows[1:]]
    found = [_paired(one, other, form) for one, other in pairs]
    enough = [len(difference) >= inference.ENOUGH for difference, _ in found]
    head = ["first", "second", f"difference of {FORMS[form]}", "P(first is better)", "pairs"]
    grid = Table("Is the difference real?", _power([len(difference) for difference, _ in found]), head)
    for (one, other), (difference, better) in zip(pairs, found, strict=True):
        mean = number(difference.mean(), 2) if len(difference) else "-"
        grid.rows.append([Cell(t) for t in (one.label, other.label, mean, number(better, 2), str(len(difference)))])
    grid.legend = [
        f"Of test {SCORES[form]}, runs of one seed paired. P(first is better): over all pairs of runs, ties half "
        "(Agarwal et al. 2021)."
    ]
    if any(enough):
        grid.head += ["p sign-flip", "p Wilcoxon", "p sign-flip, Holm"]
        flips = [inference.sign_flip(d) if ok else math.nan for (d, _), ok in zip(found, enough, strict=True)]
        ranked = [inference.wilcoxon(d) if ok else math.nan for (d, _), ok in zip(found, enough, strict=True)]
        for row, *ps in zip(grid.rows, flips, ranked, inference.holm(flips), strict=True):
            row += [Cell(number(p, 4, "n too small")) for p in ps]
        grid.legend[0] += f" p: two-sided, exact up to 16 pairs; Holm over the {sum(enough)} tests of this table."
    return grid


def _paired(one: Row, other: Row, form: str) -> tuple[NDArray[np.float64], float]:
    """Differences of the seeds that both have, and the probability that the first is better."""
    mine, its = (
        dict(zip(one.seeds, one.deltas[form], strict=True)),
        dict(zip(other.seeds, other.deltas[form], strict=True)),
    )
    difference = np.array([mine[seed] - its[seed] for seed in sorted(set(mine) & set(its))])
    higher = stats.DELTA_M[form] == "higher is better"
    return difference, inference.probability_of_improvement(one.deltas[form], other.deltas[form], higher)


def _power(pairs: Sequence[int]) -> list[str]:
    """What so many seeds can show at all."""
    if not pairs:
        return ["There are no two rows to compare."]
    n, m = max(pairs), sum(count >= inference.ENOUGH for count in pairs)
    least = inference.smallest_p(n)
    if not m:
        return [
            f"{n} pair{'s' * (n > 1)} of seeds: the smallest p that either test can give is {least:g}. n is too small "
            f"to test: no difference here is shown to be more than chance. At least {inference.ENOUGH} seeds can."
        ]
    if m * least > 0.05:
        return [f"With {n} seeds and {m} tests Holm's p cannot fall below {min(1, m * least):.3f}: n is too small."]
    return []
