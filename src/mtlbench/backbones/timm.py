"""Convolutional backbones from timm, dilated on demand, with weights from timm's hub or a local file."""

import difflib
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from mtlbench.backbones.timm_stages import Cut, cut, feature, run
from mtlbench.model import Backbone, Stage

PATIENCE = 3.0
"""Seconds in which the hub must answer one small request before a download is begun."""

FILES = (".pth", ".pt", ".bin", ".safetensors")
"""`weights` that end so, or have a slash in them, are paths."""


class Timm(Backbone):
    """Feature maps of a timm network.

    name: as in timm.list_models(), without a tag.
    output_stride: the input's sides over those of the coarsest map. Below 32 the last stages are dilated
        instead of strided: the first 3x3 convolution of a stage keeps the dilation of the stage before, as in
        torchvision and unlike segmentation-models-pytorch. null: as the network is.
    out_indices: the maps that are read, counted from the finest (0 is a ResNet's stem at 1/2, 4 its last
        stage), ascending.
    weights: null (random); "imagenet" (the tag that timm prefers); a tag of timm.list_pretrained() such as
        "tv_in1k" (torchvision's first ResNets); or a local .pth or .safetensors file with timm's key names,
        which for ResNets are torchvision's too. A classifier in it is left out.
    pool: the map's mean over its places, a vector, is the representation (attributes, classes).
    Raises ValueError for a name, stride, index, tag or file that does not exist or does not fit, within
    seconds where the weights are neither in the local cache nor to be had from the hub, and for images with a
    side below the coarsest map's stride.
    """

    features: ClassVar[dict[str, Any]] = {}
    """What else timm is told about the maps, where a family of networks needs it."""

    def __init__(
        self,
        name: str,
        output_stride: int | None = None,
        out_indices: Sequence[int] = (4,),
        weights: str | None = None,
        pool: bool = False,
    ):
        super().__init__()
        _check_name(name)
        ordered = list(out_indices)
        if not ordered or ordered != sorted(set(ordered)) or ordered[0] < 0:
            raise ValueError(f"backbone.out_indices={ordered}: expected ascending numbers from 0, such as [4].")
        # the network before its weights: a wrong option should not wait for a download
        options = {"features_only": True, "out_indices": ordered} | self.features
        if output_stride is not None:
            options["output_stride"] = output_stride
        with torch.device("meta"):
            _create(name, options)
        self.network = _create(name, options | _pretrained(name, weights))
        self.name, self.pool = name, pool
        self._cut: dict[str, Cut] | None = None
        if pool and len(ordered) > 1:
            raise ValueError(
                f"backbone.pool=true: one map is averaged, and backbone.out_indices={ordered} names several."
            )
        self.channels = tuple(self.network.feature_info.channels())
        reductions = tuple(self.network.feature_info.reduction())
        self.least, self.reductions = max(reductions), (0,) if pool else reductions

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        check_size(self.name, image, self.least)
        return self._features(self.network(image))

    def _features(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(x.mean((2, 3)) for x in maps) if self.pool else tuple(maps)

    def cut(self) -> dict[str, Cut]:
        if self._cut is None:
            self._cut = cut(self.network)
        return self._cut

    def stages(self) -> dict[str, Stage]:
        return {
            name: Stage(
                stage.channels,
                tuple(self.network.get_submodule(path) for path in stage.modules),
                inner=stage.channels if stage.inner else 0,
                read=stage.index in self.network.feature_info.out_indices,
            )
            for name, stage in self.cut().items()
        }

    def stage(self, name: str, x: Tensor, memory: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
        if name == next(iter(self.cut())):
            check_size(self.name, x, self.least)
        return run(self.network, self.cut()[name], x, memory)

    def collect(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        read = self.network.feature_info.out_indices
        return self._features([feature(c, maps[name]) for name, c in self.cut().items() if c.index in read])


def check_size(network: str, image: Tensor, least: int) -> None:
    """Raises ValueError where an image has a side below `least`, the stride of the network's coarsest map."""
    height, width = image.shape[-2:]
    if min(height, width) < least:
        raise ValueError(
            f"backbone: {network}'s coarsest map has one place for {least} x {least} pixels, and the images are of "
            f"{height} x {width}. Type a size or crop of {least} or more a side, or a backbone of a smaller stride "
            f"(backbone.output_stride or backbone.out_indices, where it has them)."
        )


def _check_name(name: str) -> None:
    if name in timm.list_models():
        return
    if "." in name and name.split(".")[0] in timm.list_models():
        bare, tag = name.split(".", 1)
        raise ValueError(
            f"backbone.name={name}: the tag goes elsewhere. Type backbone.name={bare} backbone.weights={tag}."
        )
    raise ValueError(
        f"backbone.name={name}: timm has no such network.{_nearest(name, timm.list_models())} "
        f"All of them: python -c 'import timm; print(timm.list_models())'."
    )


def _create(name: str, options: dict) -> nn.Module:
    try:
        return timm.create_model(name, **options)
    except (AssertionError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"backbone.output_stride={options.get('output_stride')}: timm's {name} does not give feature maps at "
            f"that stride ({str(error) or type(error).__name__}). ResNets take 8, 16 or 32; networks that cannot be "
            f"dilated take null."
        ) from error
    except IndexError as error:
        found = timm.create_model(name, features_only=True).feature_info
        raise ValueError(
            f"backbone.out_indices={options['out_indices']}: {name} has the maps 0 to {len(found) - 1}, of "
            f"{', '.join(map(str, found.channels()))} channels."
        ) from error


def _pretrained(name: str, weights: str | None) -> dict:
    """What create_model is told to get the weights."""
    if weights is None:
        return {}
    if weights.endswith(FILES) or "/" in weights:
        return _from_file(name, Path(weights))
    tags = [full.split(".", 1)[1] for full in timm.list_pretrained(f"{name}.*")]
    tag = get_pretrained_cfg(name).tag if weights == "imagenet" and tags else weights
    if tag not in tags:
        raise ValueError(
            f"backbone.weights={weights}: timm has no such weights for {name}.{_nearest(weights, tags)} There are: "
            f"{', '.join(['imagenet', *tags] if tags else ['none'])}. Or type backbone.weights=<local file>."
        )
    return _from_hub(name, tag, weights)


def _from_hub(name: str, tag: str, asked: str) -> dict:
    where = get_pretrained_cfg(f"{name}.{tag}").hf_hub_id
    if where:
        for file in ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(where, file, cache_dir=constants.HF_HUB_CACHE)
            if isinstance(cached, str):
                return {"pretrained": True, "pretrained_cfg": tag, "pretrained_cfg_overlay": {"file": cached}}
        problem = _unreachable(where)
        if problem is None:
            return {"pretrained": True, "pretrained_cfg": tag}
    else:
        problem = "timm does not keep them on its hub"
    raise ValueError(
        f"backbone.weights={asked}: the weights {name}.{tag} are not in {constants.HF_HUB_CACHE} and could not be "
        f"had from {constants.ENDPOINT} ({problem}). Type backbone.weights=<local file> (.pth or .safetensors), "
        f"backbone.weights=null for random weights, or start once where there is a network."
    )


def _unreachable(repository: str) -> str | None:
    """Why nothing can be downloaded, or None: one request without retries, where a download would retry for long.

    In a thread, because looking up the hub's address has no time limit of its own.
    """
    answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            HfApi(endpoint=constants.ENDPOINT).model_info(repository, timeout=PATIENCE)
        except Exception as error:  # its class is that of the HTTP library, which differs between versions
            answer.put((str(error) or type(error).__name__).splitlines()[0])
        else:
            answer.put(None)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=PATIENCE)
    except queue.Empty:
        return f"no answer within {PATIENCE:g} s"


def _from_file(name: str, path: Path) -> dict:
    """Checks the file against the whole network first: timm itself passes over what is missing."""
    if not path.is_file():
        raise ValueError(
            f"backbone.weights={path}: there is no such file. Expected a .pth or .safetensors file, null, imagenet "
            f"or one of timm's tags."
        )
    try:
        state = load_state_dict(str(path))
    except Exception as error:  # torch, zip, pickle and safetensors each raise their own
        raise ValueError(
            f"backbone.weights={path}: not a file of weights that can be read safely "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). Expected a state dict "
            f"of tensors saved by torch.save or safetensors."
        ) from error
    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    classifier = get_pretrained_cfg(name).classifier or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    if name.startswith("vgg"):  # two more layers of the classifier; torchvision's is of another name
        heads += ("pre_logits.", "classifier.")
    wanted, found = (
        {key: tuple(value.shape) for key, value in keys.items() if _counts(key, value, heads)}
        for keys in (expected, state)
    )
    problems = [
        _listed("missing", [key for key in wanted if key not in found]),
        _listed("unexpected", [key for key in found if key not in wanted]),
        _listed(
            "of another shape",
            [
                f"{key} {found[key]} instead of {wanted[key]}"
                for key in wanted
                if found.get(key, wanted[key]) != wanted[key]
            ],
        ),
    ]
    if any(problems):
        raise ValueError(
            f"backbone.weights={path}: not the weights of {name}. {' '.join(filter(None, problems))} What fits: the "
            f"state dict of timm.create_model({name!r}), with or without its classifier"
            f"{', or of torchvision' if name.startswith(('resnet', 'vgg')) else ''}."
        )
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}


def _counts(key: str, value: object, heads: tuple[str, ...]) -> bool:
    # files from before torch 0.4.1 have no num_batches_tracked, and nothing reads it where momentum is set
    return isinstance(value, Tensor) and not key.startswith(heads) and not key.endswith("num_batches_tracked")


def _listed(kind: str, keys: Sequence[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{len(keys)} {kind}: {', '.join(keys[:most])}{more}." if keys else ""


def _nearest(typed: str, existing: Sequence[str]) -> str:
    near = difflib.get_close_matches(typed, existing, n=1, cutoff=0.4)
    return f" Did you mean {near[0]}?" if near else ""
