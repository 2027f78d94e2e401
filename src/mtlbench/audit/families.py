"""Which printed tables are of nearly one protocol, and what each source says of it: the data of same_method.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """One source's numbers: the rows of results/papers/<paper>.csv in which the columns of `where` say what they say.

    protocol: {what: how}; a key that is missing is unsaid, or was not looked up. Of a printed metric "task/metric",
    what turns it into the family's: powers, 10^power times it; minus, this number less it; rename, another name.
    same: ids of methods that the family has under another one.
    """

    name: str
    paper: str
    where: Mapping[str, str]
    protocol: Mapping[str, str]
    powers: Mapping[str, int] = field(default_factory=dict)
    minus: Mapping[str, int] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Sources of one protocol, but for what their `protocol`s tell.

    metrics: {"task/metric": what to call it}.
    """

    title: str
    metrics: Mapping[str, str]
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()


MTAN = {
    "images": "288 x 384, 13 classes",
    "network": "SegNet with attention (MTAN)",
    "trained on": "795 images, none held out",
    "reported on": "654 test images",
    "epochs": "200",
    "batch": "2",
    "optimizer": "Adam",
    "learning rate": "1e-4, halved after 100 epochs",
    "reported epoch": "mean of the last 10, on test",
    "Δm relative to": "the single-task row that CAGrad printed",
}
MTAN_CITYSCAPES = MTAN | {
    "images": "128 x 256, 7 classes",
    "trained on": "2,975 images, none held out",
    "reported on": "500 validation images",
    "batch": "8",
}
ELICH = {
    "images": "288 x 384, 13 classes",
    "trained on": "636 images, 159 held out",
    "reported on": "654 test images",
    "epochs": "200",
    "batch": "8",
    "optimizer": "Adam, weight decay 1e-5",
    "learning rate": "best of ten by validation Δm, halved every 100 epochs",
    "reported epoch": "stopped early by validation Δm",
    "augmentation": "scaled and cropped",
    "seeds": "3",
    "Δm relative to": "its own single-task networks",
}
ELICH_CITYSCAPES = ELICH | {
    "images": "128 x 256, 7 classes",
    "trained on": "2,380 images, 595 held out",
    "reported on": "500 validation images",
    "epochs": "300",
    "batch": "64",
}
LIBMTL = {
    "images": "288 x 384, 13 classes",
    "trained on": "795 images, none held out",
    "reported on": "654 test images",
    "epochs": "200",
    "batch": "8",
    "optimizer": "Adam, weight decay 1e-5",
    "learning rate": "1e-4, halved every 100 epochs",
    "reported epoch": "the best one by its test metrics (its code, where no validation part is given)",
}
LIBMTL_CITYSCAPES = LIBMTL | {
    "images": "128 x 256, 7 classes",
    "trained on": "2,975 images, none held out",
    "reported on": "500 validation images",
    "batch": "64",
}
PERCENT = {key: 2 for key in ("semseg/miou", "semseg/pixel_acc")}
DENSE = {"semseg/miou": "mIoU, %", "depth/abs_err": "absolute error of depth"}
UB = {"mgda_ub": "mgda"}

FAMILIES = (
    Family(
        "NYUv2: segmentation, depth, normals; SegNet",
        {**DENSE, "normals/mean_angle": "mean angle of normals, degrees", "all/delta_m": "Δm, lower is better"},
        (
            Source(
                "Elich et al. 2023, A5",
                "elich2023",
                {"table": "A5", "optimizer": "adam"},
                ELICH | {"network": "SegNet (LibMTL's)"},
                PERCENT,
            ),
            Source("as quoted since MTAN", "peers", {"paper": "ntkmtl2025", "dataset": "NYUv2"}, MTAN),
            Source(
                "Aligned-MTL 2023",
                "peers",
                {"paper": "alignedmtl2023"},
                {key: MTAN[key] for key in ("images", "network", "reported on")},
            ),
            Source(
                "LibMTL, SegNet",
                "peers",
                {"paper": "libmtl", "architecture": "SegNet-MTAN"},
                {key: MTAN[key] for key in ("images", "network", "trained on", "reported on", "Δm relative to")}
                | {"seeds": "3"},
            ),
        ),
        (
            "GradNorm has mIoU 20.09 in the Aligned-MTL paper and 40.12 in LibMTL's rerun.",
            "Δm of LibMTL: recomputed from its metrics against the quoted single-task row.",
            "The quoted row of Aligned-MTL is, digit for digit, LibMTL's rerun and not the method's own paper.",
            "IMTL is both balances in Elich et al. and LibMTL; the quoted row is IMTL-G alone, and not here.",
        ),
    ),
    Family(
        "Cityscapes: segmentation, inverse depth; SegNet",
        {**DENSE, "depth/rel_err": "relative error of depth", "all/delta_m": "Δm, lower is better"},
        (
            Source(
                "Elich et al. 2023, A3",
                "elich2023",
                {"table": "A3", "optimizer": "adam"},
                ELICH_CITYSCAPES | {"network": "SegNet (LibMTL's)"},
                PERCENT,
            ),
            Source("as quoted since MTAN", "peers", {"paper": "ntkmtl2025", "dataset": "Cityscapes"}, MTAN_CITYSCAPES),
        ),
    ),
    Family(
        "NYUv2: segmentation, depth, normals; ResNet-50, dilated, with ASPP",
        {**DENSE, "normals/mean_angle": "mean angle of normals, degrees"},
        (
            Source(
                "Elich et al. 2023, A6",
                "elich2023",
                {"table": "A6", "optimizer": "adam"},
                ELICH | {"network": "DeepLabV3+ (LibMTL's)"},
                PERCENT,
            ),
            Source(
                "DB-MTL 2023",
                "peers",
                {"paper": "dbmtl2023", "dataset": "NYUv2"},
                LIBMTL | {"network": "ResNet-50 dilated, ASPP heads"},
            ),
            Source(
                "LibMTL, ResNet",
                "peers",
                {"paper": "libmtl", "architecture": "ResNet-50 dilated + ASPP"},
                LIBMTL | {"network": "ResNet-50 dilated, ASPP heads", "seeds": "1", "augmentation": "none"},
            ),
        ),
        ("DB-MTL follows LibMTL's protocol: rate, batch, epochs and reported epoch are the defaults of its code.",),
    ),
    Family(
        "Cityscapes: segmentation, inverse depth; ResNet-50, dilated, with ASPP",
        {**DENSE, "semseg/pixel_acc": "pixel accuracy, %", "depth/rel_err": "relative error of depth"},
        (
            Source(
                "Elich et al. 2023, A4",
                "elich2023",
                {"table": "A4", "optimizer": "adam"},
                ELICH_CITYSCAPES | {"network": "DeepLabV3+ (LibMTL's)"},
                PERCENT,
            ),
            Source(
                "DB-MTL 2023",
                "peers",
                {"paper": "dbmtl2023", "dataset": "Cityscapes"},
                LIBMTL_CITYSCAPES | {"network": "ResNet-50 dilated, ASPP heads"},
            ),
        ),
        ("DB-MTL follows LibMTL's protocol: rate, batch, epochs and reported epoch are the defaults of its code.",),
    ),
    Family(
        "Cityscapes: segmentation, instance offsets, disparity; ResNet-50 with pyramid pooling",
        {
            "semseg/miou": "mIoU, %",
            "instance/error": "error of offsets, as printed in px",
            "disparity/error": "error of disparity, as printed in px",
        },
        (
            Source(
                "MGDA 2018, 4",
                "mgda2018",
                {"table": "4"},
                {
                    "images": "256 x 512, 19 classes",
                    "trained on": "2,975 images, 275 of them held out while the rate is chosen",
                    "reported on": "500 validation images",
                    "epochs": "250",
                    "batch": "8",
                    "optimizer": "SGD with momentum",
                    "learning rate": "best of six on the held-out images, halved every 30 epochs",
                    "losses": "cross-entropy, MSE, MSE (its code: L1)",
                },
                same=UB,
            ),
            Source(
                "IMTL 2021, 1",
                "imtl2021",
                {"table": "1", "setting": "default"},
                {
                    "images": "crops of 713 x 713 of 1024 x 2048, 19 classes",
                    "trained on": "2,975 images",
                    "reported on": "500 validation images",
                    "epochs": "200",
                    "batch": "32",
                    "optimizer": "SGD, momentum 0.9, weight decay 1e-4",
                    "learning rate": "0.02, polynomial with power 0.9",
                    "losses": "cross-entropy, L1, L1",
                },
                rename={"instance/l1": "instance/error", "disparity/l1": "disparity/error"},
            ),
            Source(
                "survey 2021, 11c",
                "survey2021",
                {"table": "11c"},
                {
                    "trained on": "2,975 images",
                    "reported on": "500 validation images",
                    "batch": "best of three",
                    "optimizer": "Adam or SGD with momentum 0.9",
                    "learning rate": "best of four for each optimizer and two schedules: 48 settings with the batches",
                },
                rename={"depth/error": "disparity/error"},
            ),
        ),
        (
            "Errors in pixels grow with the image: IMTL's are of images four times as wide.",
            "MGDA's own row is MGDA-UB, on features; what the other two ran is unsaid.",
        ),
    ),
    Family(
        "CelebA: 40 attributes; ResNet-18 with 40 linear heads",
        {"attributes/accuracy": "mean accuracy, %"},
        (
            Source(
                "MGDA 2018, 1",
                "mgda2018",
                {"table": "1"},
                {
                    "images": "64 x 64",
                    "reported on": "19,962 test images",
                    "epochs": "100",
                    "batch": "256",
                    "optimizer": "SGD with momentum",
                    "learning rate": "best of six by validation accuracy, halved every 30 epochs",
                    "losses": "softmax cross-entropy of two classes",
                },
                minus={"attributes/error": 100},
                rename={"attributes/error": "attributes/accuracy"},
                same=UB,
            ),
            Source(
                "IMTL 2021, 2",
                "imtl2021",
                {"table": "2", "dataset": "CelebA"},
                {
                    "images": "218 x 178",
                    "reported on": "19,867 validation images",
                    "epochs": "100",
                    "batch": "256",
                    "optimizer": "SGD, momentum 0.9, weight decay 1e-4",
                    "learning rate": "polynomial with power 0.9",
                    "losses": "binary cross-entropy",
                    "first weights": "random",
                },
            ),
            Source(
                "survey 2021, 11a",
                "survey2021",
                {"table": "11a"},
                {
                    "images": "224 x 224, random crops, mirrored",
                    "batch": "best of 32, 128, 256",
                    "optimizer": "Adam or SGD with momentum 0.9",
                    "learning rate": "best of four for each optimizer and two schedules: 48 settings with the batches",
                    "losses": "binary cross-entropy",
                    "first weights": "ImageNet",
                },
            ),
        ),
        (
            "MGDA prints errors: 100 less them here.",
            "MGDA's own row is MGDA-UB, on features; what the other two ran is unsaid.",
            "The survey's Table 12 quotes 91.75 for MGDA, its own run in Table 11a has 91.30.",
        ),
    ),
    Family(
        "QM9: 11 properties; message passing",
        {"all/delta_m": "Δm, lower is better"},
        (
            Source(
                "as quoted",
                "peers",
                {"dataset": "QM9", "setting": "quoted"},
                {"batch": "120", "patience of the schedule": "5"},
            ),
            Source(
                "NTKMTL 2025, rerun",
                "peers",
                {"dataset": "QM9", "setting": "rerun"},
                {"batch": "60", "patience of the schedule": "10"},
            ),
        ),
        ("The reruns are of one paper, which changed the schedule for all methods alike.",),
    ),
)
