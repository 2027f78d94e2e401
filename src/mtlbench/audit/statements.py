"""What the papers' texts say of their tables, where the tables say something else; all numbers are read there."""

from collections.abc import Sequence

from mtlbench import published, stats
from mtlbench.audit.aggregates import Papers
from mtlbench.audit.intervals import shown
from mtlbench.audit.misprints import Finding, needs

NYU = (("semseg", "miou"), ("normals", "cos"), ("depth", "l1"))


def best(papers: Papers, paper: str, table: str, column: tuple[str, str], methods: Sequence[str], **where: str) -> str:
    """The method with the best printed number of a column."""
    (higher,) = papers.higher(paper, table, [column])
    values = {m: papers.number(paper, table, (m, *column), **where).value for m in methods}
    return (max if higher else min)(values, key=lambda method: values[method])


def imtl_scale(papers: Papers) -> Finding:
    frame = papers.frames["imtl2021"]
    least = []
    for task, metric in (("instance", "l1"), ("disparity", "l1")):
        part = frame[(frame.task == task) & (frame.metric == f"{metric}_abs_change")]
        own = part[part.method == "imtl"].value.iloc[0]
        less = part[part.value.astype(float) < float(own)].sort_values("value")
        needs(len(less) > 0, f"some method changes less than IMTL in {task}")
        others = ", ".join(f"{m} {v}" for m, v in zip(less.method, less.value, strict=True))
        least.append(f"{task} {others} against {own}")
    miou = frame[frame.metric == "miou_abs_change"]
    needs(miou.loc[miou.value.astype(float).idxmin()].method == "imtl", "IMTL's mIoU changes least")
    return Finding(
        "imtl2021 1",
        f'IMTL has "the smallest performance fluctuations": true of mIoU; {"; ".join(least)}.',
    )


def imtl_nyu(papers: Papers) -> Finding:
    methods = [m for m in papers.methods("imtl2021", "2") if m not in ("single_task", "uncertainty")]
    winners = [best(papers, "imtl2021", "2", column, methods, dataset="NYUv2") for column in NYU]
    needs(winners == ["imtl", "imtl", "imtl_l"], "IMTL-L is best in the depth of NYUv2, IMTL in the rest")
    own, other = (papers.text("imtl2021", "2", (m, "depth", "l1"), dataset="NYUv2") for m in ("imtl", "imtl_l"))
    return Finding("imtl2021 2", f'IMTL "performs best" on NYUv2: its depth L1 {own} is behind the {other} of IMTL-L.')


def imtl_normals(papers: Papers) -> Finding:
    own, other, relaxed = (
        papers.text("imtl2021", "2", (m, "normals", "cos"), dataset="NYUv2") for m in ("imtl", "mgda", "mgda_relaxed")
    )
    needs(float(own) > float(relaxed) > float(other), "IMTL is ahead of MGDA in the normals of NYUv2")
    return Finding(
        "imtl2021 2",
        f'of the normals of NYUv2, MGDA "learns it best": cosine {other} (without the constraint {relaxed}), behind '
        f"the {own} of IMTL.",
    )


def mgda_grid(papers: Papers) -> Finding:
    numbers = [
        [papers.text("mgda2018", "3", (m, f"{side}_digit", "accuracy")) for side in ("left", "right")]
        for m in ("gradnorm", "equal")
    ]
    needs(all(float(a) < float(b) for a, b in zip(*numbers, strict=True)), "GradNorm is behind uniform scaling")
    (a, b), (c, d) = numbers
    return Finding(
        "mgda2018 3",
        f'uncertainty weighting and GradNorm are "slightly better than grid search": GradNorm ({a}, {b}) is behind '
        f"uniform "
        f"scaling ({c}, {d}), itself a static scaling, on both digits. The grid is a figure without numbers.",
    )


def mgda_speed(papers: Papers) -> Finding:
    fast, slow = (
        papers.number("mgda2018", "2", (m, "all", "training_time"), dataset="CelebA") for m in ("mgda_ub", "mgda")
    )
    factor = slow / fast
    times = [
        papers.number("mgda2018", "2", (m, "all", "training_time"), dataset="Cityscapes") for m in ("mgda_ub", "mgda")
    ]
    saved = (1 - times[0].value / times[1].value) * 100
    needs(factor.low > 25 and round(saved) == 40, "MGDA-UB is more than 25 times as fast")
    low, value, high = (shown(n, 1) for n in (factor.low, factor.value, factor.high))
    return Finding(
        "mgda2018 2",
        f'"accelerates learning by a factor of 25": {value} ({low} to {high}). The "40%" of three tasks is '
        f"{shown(saved, 1)}.",
    )


def mgda_attributes(papers: Papers) -> Finding:
    wide = papers.table("mgda2018", "5")
    values = published.numbers(wide)[0]
    mine = list(wide.index.get_level_values("method")).index("mgda_ub")
    others = [i for i in range(len(wide)) if i != mine]
    rest = values[others].min(0)
    strict, tied = int((values[mine] < rest).sum()), int((values[mine] == rest).sum())
    lost = values.shape[1] - strict - tied
    needs(lost > 0, "MGDA-UB is not best in every attribute")
    return Finding(
        "mgda2018 5",
        f'"outperforms baselines for significant majority of tasks": strictly on {strict} of {values.shape[1]} '
        f"attributes, tied on "
        f"{tied}, behind on {lost}.",
    )


def mgda_unit(papers: Papers) -> Finding:
    own = papers.text("mgda2018", "4", ("mgda_ub", "instance", "error"))
    return Finding(
        "mgda2018 2, 4",
        f'the columns are called "error [px]" (instance {own}), the text reports "the MSE in the proxy task", which '
        f"is in px². "
        "Stored as error. The unit of Table 2's first training time is not printed, that of the second is hours.",
    )


def survey_baseline(papers: Papers) -> Finding:
    deltas = {m: papers.text("survey2021", "3", (m, "all", "delta_m")) for m in papers.methods("survey2021", "3")}
    needs(float(deltas["cross_stitch"]) > float(deltas["mtl_baseline"]) == float(deltas["mtan"]), "table 3's order")
    return Finding(
        "survey2021 3",
        f'the MTL baseline "outperforms other encoder-based approaches": printed {deltas["mtl_baseline"]}, MTAN the '
        f"same, cross-stitch "
        f"{deltas['cross_stitch']}. Within rounding the three cannot be told apart.",
    )


def survey_costs(papers: Papers) -> Finding:
    cells = {
        m: [papers.text("survey2021", "5", (m, "all", key)) for key in ("params_m", "flops_g")]
        for m in ("cross_stitch", "single_task")
    }
    needs(all(float(a) <= float(b) for a, b in zip(*cells.values(), strict=True)), "cross-stitch costs no more")
    (p, f), (q, g) = cells.values()
    return Finding(
        "survey2021 5",
        f'of cross-stitch, NDDR-CNN and MTAN "the number of parameters and FLOPS increases": cross-stitch has {p} M '
        f"and {f} G, the "
        f"single-task networks {q} M and {g} G. The header prints FLOPS with an arrow up; stored as lower is better.",
    )


def survey_quote(papers: Papers) -> Finding:
    quoted = papers.text("survey2021", "12", ("mgda", "attributes", "accuracy"))
    own = papers.text("survey2021", "11a", ("mgda", "attributes", "accuracy"))
    error = papers.number("mgda2018", "1", ("mgda_ub", "attributes", "error")).value
    needs(float(quoted) == float(100 - error) != float(own), "Table 12 quotes MGDA's own number")
    return Finding(
        "survey2021 12",
        f"MGDA {quoted} is quoted (100 - {shown(error, 2)} of mgda2018 1, at 64 x 64); the survey's own run, in 11a, "
        f"has {own} (at 224 "
        "x 224).",
    )


def elich_dominant(papers: Papers) -> Finding:
    found = {}
    for name in ("A3", "A4", "A5", "A6"):
        wide = papers.table("elich2023", name).xs("adam", level="optimizer")
        columns = published.raw(wide)
        values = published.numbers(wide[columns])[0]
        methods = list(wide.index.get_level_values("method"))
        sign = [1 if better else -1 for better in papers.higher("elich2023", name, columns)]
        gain = (values - values[methods.index("equal")]) * sign
        found[name] = [m for m, g in zip(methods, gain, strict=True) if m != "single_task" and (g > 0).all()]
    expected = {"A3": ["uncertainty", "imtl", "cagrad"], "A4": [], "A5": ["cagrad"], "A6": []}
    needs(found == expected, "some methods are ahead of equal weights with Adam in every metric of A3 and A5")
    return Finding(
        "elich2023 A3-A6",
        'no method "seems to be Pareto dominant over plain EW with Adam" (Section 4.1.2): true over the four '
        "settings together. Of "
        "the printed means, with Adam, "
        + "; ".join(f"{', '.join(methods)} in {name}" for name, methods in found.items() if methods)
        + " are ahead of it in every metric.",
    )


def elich_normals(papers: Papers) -> Finding:
    cells = {
        (m, metric): papers.text("elich2023", "A9", (m, "normals", f"corr_delta_{metric}"), architecture="DeepLabV3")
        for m in papers.methods("elich2023", "A9")
        for metric in ("mean_angle", "median_angle")
    }
    worse = {place: text for place, text in cells.items() if float(text) > 0}
    needs({m for m, _ in worse} == {"imtl", "cagrad"}, "two methods are above 0 in the normals of A9")
    said = ", ".join(f"{m} {metric.removesuffix('_angle')} {text}" for (m, metric), text in worse.items())
    return Finding(
        "elich2023 A9",
        f'mean and median angle of normals are "consistently better for MTL" (below 0): with DeepLabV3 {said}.',
    )


def elich_toy(papers: Papers) -> Finding:
    frame = papers.toy
    part = frame[(frame.method == "pcgrad") & (frame.optimizer == "adam") & (frame.iterations != "")]
    main = part[part.lr.astype(float).isin([10.0, 1.0, 0.1])]
    needs(len(main) == 3, "PCGrad with Adam reaches the minimum at three rates of Table 1")
    numbers = ", ".join(f"{n} at lr {lr}" for n, lr in zip(main.iterations, main.lr, strict=True))
    return Finding(
        "elich2023 1, A7",
        'the caption: "PCGrad converges only to some point on the Pareto Front"; the table prints iterations to the '
        "global minimum for "
        f'PCGrad with Adam: {numbers} (A7, whose caption says "often", has {len(part)} such rates).',
    )


def elich_relative_error(papers: Papers) -> Finding:
    column = ("depth", "rel_err")
    single = {name: papers.number("elich2023", name, ("single_task", *column)) for name in ("A3", "A4")}
    equal = papers.number("elich2023", "A3", ("equal", *column), optimizer="adam")
    part = (equal.value / single["A3"].value - 1) * 25
    total = papers.text("elich2023", "A3", ("equal", "all", "delta_m"), optimizer="adam")
    needs(part > 60, "the relative error makes most of A3's Delta_m")
    return Finding(
        "elich2023 A3, A4",
        f"no error, but a warning: Δm on Cityscapes is mostly the relative depth error. Of equal weights with Adam "
        f"(A3, {total}) it alone makes {shown(part, 1)}; its single-task value is {shown(single['A3'].value, 2)} "
        f"with SegNet and {shown(single['A4'].value, 2)} "
        "with DeepLabV3+, which is better in the three other metrics.",
    )


def elich_a9_mean(papers: Papers) -> Finding:
    place = ("equal", "all", "corr_delta_mean")
    said = papers.text("elich2023", "A9", place, architecture="DeepLabV3")
    wide = papers.table("elich2023", "A9")
    row = next(row for row in wide.index if "DeepLabV3" in row and "equal" in row)
    mean = sum(stats.printed(wide.loc[row, column])[0] for column in published.raw(wide)) / len(published.raw(wide))
    needs(f"{mean:.4f}" != said, "A9's mean of equal weights differs in the last digit")
    return Finding(
        "elich2023 A9",
        f"equal weights, DeepLabV3: the mean of the nine columns is {mean:.5f}, printed {said} (within rounding).",
    )


def elich_imtl(papers: Papers) -> Finding:
    frame = papers.frames["imtl2021"]
    needs(set(frame[frame.dataset == "CelebA"].optimizer) == {""}, "IMTL's CelebA rows name no optimizer")
    return Finding(
        "elich2023 A1",
        "IMTL is said to have used Adam (0.003) on CelebA; IMTL's own text names SGD alone (\"most of the "
        "implementation details are "
        'the same as those on the Cityscapes dataset"). Optimizer and learning rate are left blank.',
    )


STATEMENTS = (
    *(imtl_scale, imtl_nyu, imtl_normals, mgda_grid, mgda_speed, mgda_attributes, mgda_unit),
    *(survey_baseline, survey_costs, survey_quote),
    *(elich_toy, elich_dominant, elich_normals, elich_relative_error, elich_a9_mean, elich_imtl),
)


def statements(papers: Papers) -> list[Finding]:
    """Texts that their tables do not bear out. Raises ValueError for a finding that the csv no longer shows."""
    return [finding(papers) for finding in STATEMENTS]
