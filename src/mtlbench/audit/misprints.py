"""Aggregates that do not follow from the printed numbers, and what would make them follow; all recomputed."""

from collections.abc import Iterator
from dataclasses import dataclass

from mtlbench import published
from mtlbench.audit.aggregates import Check, Papers, average_ranks_of_values, delta_m, ranks
from mtlbench.audit.intervals import exact, mean, shown


@dataclass(frozen=True)
class Finding:
    """place: paper and table; text: what is printed, what follows, what may be behind it."""

    place: str
    text: str


def needs(holds: bool, what: str) -> None:
    """Raises ValueError where a finding is no longer true of the csv files."""
    if not holds:
        raise ValueError(f"results/papers no longer shows that {what}: correct the finding or the file.")


def span(check: Check) -> str:
    """recomputed 1.215, 1.022 to 1.409"""
    low, value, high = (shown(n, 3) for n in (check.recomputed.low, check.recomputed.value, check.recomputed.high))
    return f"recomputed {value}, {low} to {high}"


def _by_row(checks: Iterator[Check]) -> dict[str, Check]:
    return {check.row: check for check in checks}


def _only(checks: Iterator[Check], row: str, quantity: str) -> Check:
    """The one aggregate of a table that does not follow."""
    wrong = [check for check in checks if not check.inside]
    found = [(check.row, check.quantity) for check in wrong]
    needs(found == [(row, quantity)], f"the {quantity} of {row}, and nothing else of its table, does not follow")
    return wrong[0]


def survey_11b(papers: Papers) -> Finding:
    place = ("single_task", "semseg", "miou")
    here = papers.text("survey2021", "11b", place)
    there = {papers.text("survey2021", table, place) for table in ("3", "6", "10")}
    found = _by_row(delta_m(papers, "survey2021", "11b"))
    wrong = [check for check in found.values() if not check.inside]
    needs(there == {"44.5"} and here == "44.6", "the single-task mIoU of NYUv2 is printed in two ways")
    needs([check.row for check in wrong] == ["gradnorm", "mgda"], "two rows of 11b do not follow")
    mended = _by_row(delta_m(papers, "survey2021", "11b", replace={place: "44.5"}))
    joint = published.jointly_consistent(papers.frames["survey2021"], "11b", {("semseg", "miou"): "44.5"})
    needs(all(check.inside for check in mended.values()) and joint, "11b follows with a mIoU of 44.5")
    outside = "; ".join(f"{check.row} printed {check.printed}, {span(check)}" for check in wrong)
    return Finding(
        "survey2021 11b",
        f"single_task mIoU {here}; tables 3, 6 and 10 print 44.5 for the same model. With {here}: {outside}. With "
        f"44.5 all {len(mended)} rows are within, also with one unrounded single-task row. Use 44.5.",
    )


def survey_11c(papers: Papers) -> Finding:
    found = _by_row(delta_m(papers, "survey2021", "11c"))
    needs([row for row, check in found.items() if not check.inside] == ["dwa"], "only DWA of 11c does not follow")
    depth = papers.text("survey2021", "11c", ("dwa", "depth", "error"))
    same = papers.text("survey2021", "11c", ("equal", "depth", "error"))
    instance = papers.text("survey2021", "11c", ("dwa", "instance", "error"))
    needs(depth == same, "DWA's depth error is that of fixed weights")
    ways = []
    for task, text in (("depth", "2.61"), ("instance", "11.7")):
        check = _by_row(delta_m(papers, "survey2021", "11c", replace={("dwa", task, "error"): text}))["dwa"]
        needs(check.inside, f"{task} {text} would make DWA follow")
        ways.append(shown(check.recomputed.value, 2))
    return Finding(
        "survey2021 11c",
        f"dwa printed {found['dwa'].printed} (and in Section 4.5.3), {span(found['dwa'])}. Depth 2.61 in place of "
        f"{depth}, which is also the number of fixed weights, would give {ways[0]}; instance 11.7 in place of "
        f"{instance} would give {ways[1]}. Not "
        "decidable: not to be used for a check.",
    )


def survey_9(papers: Papers) -> Finding:
    place = ("mtl_baseline", "semseg", "miou")
    check = _by_row(delta_m(papers, "survey2021", "9"))["mtl_baseline"]
    frame = papers.frames["survey2021"]
    needs(check.inside and not check.exactly, "the MTL baseline of table 9 is at the edge of its interval")
    needs(not published.jointly_consistent(frame, "9"), "no single-task row fits all of table 9")
    needs(published.jointly_consistent(frame, "9", leave_out=["mtl_baseline"]), "the rest of table 9 is consistent")
    mine, below = (papers.text("survey2021", "9", (m, "semseg", "miou")) for m in ("mtl_baseline", "pad_net"))
    needs(mine == below, "the mIoU of the MTL baseline is that of PAD-Net")
    mended = _by_row(delta_m(papers, "survey2021", "9", replace={place: "54.3"}))["mtl_baseline"]
    return Finding(
        "survey2021 9",
        f"mtl_baseline printed {check.printed}, {span(check)}: within only with nearly every number rounded in the "
        f"most favourable direction, and then not together with the other rows under one single-task row; without it "
        f"they agree. Its mIoU {mine} is also that of the row below; 54.3 would give "
        f"{shown(mended.recomputed.value, 2)}.",
    )


def lsb_2b(papers: Papers) -> Finding:
    check = _only(ranks(papers, "2b"), "gls", "largest rank")
    rmse = papers.text("lsb2021", "2b", ("gls", "depth", "rmse"))
    largest = shown(check.recomputed.value, 0)
    return Finding(
        "lsb2021 2b",
        f"gls, largest rank printed {check.printed}; its printed ranks reach {largest} (RMSE {rmse}). Its mean rank "
        f"is right.",
    )


def lsb_2c(papers: Papers) -> Finding:
    check = _only(ranks(papers, "2c"), "lsb", "mean rank")
    wide = papers.table("lsb2021", "2c")
    row = next(row for row in wide.index if "lsb" in row)
    own = ", ".join(wide.loc[row, column] for column in published.raw(wide, "rank_"))
    total = mean(exact(text) for text in wide["all", "rank_avg"]) * len(wide)
    must = len(wide) * (len(wide) + 1) // 2
    needs(total.value != must, "the printed mean ranks of 2c have another sum than ranks can have")
    return Finding(
        "lsb2021 2c",
        f"lsb, mean rank printed {check.printed}; its printed ranks {own} give {shown(check.recomputed.value, 2)}. "
        f"The {len(wide)} printed means sum to {shown(total.value, 2)}, must be {must}. It remains the best.",
    )


def lsb_2c_second(papers: Papers) -> Finding:
    means = {m: papers.text("lsb2021", "2c", (m, "all", "rank_avg")) for m in papers.methods("lsb2021", "2c")}
    order = sorted(means, key=lambda method: float(means[method]))
    needs(order[:3] == ["lsb", "equal", "gls"], "equal weighting is second in 2c")
    return Finding(
        "lsb2021 2c",
        f"the second-best mean rank is underlined: gls {means['gls']}. By the printed means equal weighting is "
        f"second, with {means['equal']}.",
    )


def lsb_2d(papers: Papers) -> Finding:
    wrong = [check for check in ranks(papers, "2d") if not check.inside]
    needs([check.row for check in wrong] == ["uncertainty", "dwa"], "two ranks of 2d do not follow")
    accuracy = {m: papers.text("lsb2021", "2d", (m, "semseg", "pixel_acc")) for m in ("uncertainty", "dwa")}
    means = {m: papers.text("lsb2021", "2d", (m, "all", "rank_avg")) for m in ("uncertainty", "dwa", "gls")}
    mine = {method: shown(one.value, 2) for method, one in average_ranks_of_values(papers, "2d").items()}
    needs(float(mine["gls"]) < float(mine["dwa"]) and float(means["dwa"]) < float(means["gls"]), "2d changes an order")
    said = " and ".join(f"{check.row} {accuracy[check.row]} has rank {check.printed}" for check in wrong)
    return Finding(
        "lsb2021 2d",
        f"pixel accuracy: {said}; by the values it is the other way round, and rounding allows a tie at most. By the "
        f"values the mean ranks are uncertainty {mine['uncertainty']} (printed {means['uncertainty']}) and dwa "
        f"{mine['dwa']} ({means['dwa']}), so that gls ({mine['gls']}) is ahead of dwa.",
    )


MISPRINTS = (survey_11b, survey_11c, survey_9, lsb_2b, lsb_2c, lsb_2c_second, lsb_2d)


def misprints(papers: Papers) -> list[Finding]:
    """What does not follow, by paper. Raises ValueError for a finding that the csv no longer shows."""
    return [finding(papers) for finding in MISPRINTS]
