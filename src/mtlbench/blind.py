"""The best prediction that ignores the image: what a network must beat to have learned to see."""

import torch
from torch import Tensor

from mtlbench.dataset import MultiTaskDataset, Split
from mtlbench.task import IGNORE, added


def blind_prediction(split: Split, channels: dict[str, int]) -> dict[str, Tensor]:
    """One prediction [1, C, ...] per task for every image: at each pixel the most frequent class of the split's
    labels, or the median of its values; whole-image labels likewise. Unlabelled terms do not count; a pixel
    that is never labelled gets class 0, or the median over all pixels.

    `split` must give every image at one size and without augmentation; `channels` are the tasks' outputs.
    """
    counts: dict[str, Tensor] = {}
    values: dict[str, list[Tensor]] = {}
    for i in range(len(split)):
        _, targets = split[(0, i)]
        for name, classes in channels.items():
            target = torch.as_tensor(targets[name]).as_subclass(Tensor)
            if target.is_floating_point():
                values.setdefault(name, []).append(target)
            else:
                one_hot = target == torch.arange(classes).view(-1, *[1] * target.ndim)  # IGNORE matches no class
                counts[name] = counts.get(name, 0) + one_hot.int()
    assert max(channels.values()) <= IGNORE
    prediction = {name: (count == count.amax(0)).float()[None] for name, count in counts.items()}
    for name, several in values.items():
        stack = torch.stack(several)
        median = stack.nanmedian(0).values
        prediction[name] = median.where(~median.isnan(), stack.nanmedian())[None]
    return prediction


def blind_metrics(dataset: MultiTaskDataset, prediction: dict[str, Tensor], split: Split) -> dict[str, float]:
    """The metrics "task/metric" of that prediction on a split."""
    metrics = {}
    for name, task in dataset.tasks.items():
        for meter in task.meters:
            total = None
            for i in range(len(split)):
                target = torch.as_tensor(split[(0, i)][1][name]).as_subclass(Tensor)[None]
                total = added(meter, total, meter.sums(prediction[name], target))
            metrics.update({f"{name}/{metric}": value for metric, value in meter.values(total).items()})
    return metrics
