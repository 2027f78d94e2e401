"""Backbones: shapes, dilation as torchvision's, weights by file and by name, and what is refused."""

import http.server
import json
import threading

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from mtlbench.backbones import timm as module
from mtlbench.backbones.timm import Timm
from mtlbench.config import build, load


def refused(*parts: str, **options) -> None:
    with pytest.raises(ValueError, match="backbone") as caught:
        Timm(**options)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 128), (65, 97), (33, 40)])
def test_map_has_the_stated_channels_and_reduction(stride: int, size: tuple[int, int]):
    backbone = Timm("resnet18", output_stride=stride).eval()
    (feature,) = backbone(torch.zeros(1, 3, *size))
    assert backbone.channels == (512,)
    assert backbone.reductions == (stride,)
    assert feature.shape == (1, 512, *(-(-side // stride) for side in size))


def test_several_maps_come_fine_to_coarse():
    backbone = Timm("resnet18", output_stride=8, out_indices=[1, 2, 4]).eval()
    shapes = [tuple(feature.shape[1:]) for feature in backbone(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(64, 16, 24), (128, 8, 12), (512, 8, 12)]
    assert (backbone.channels, backbone.reductions) == ((64, 128, 512), (4, 8, 8))


def test_a_network_that_cannot_be_dilated_keeps_its_own_stride():
    backbone = Timm("mobilenetv2_035", out_indices=[2, 4])
    shapes = [feature.shape for feature in backbone(torch.zeros(2, 3, 64, 64))]
    assert backbone.reductions == (8, 32)
    assert [shape[1] for shape in shapes] == list(backbone.channels)
    assert [shape[2] for shape in shapes] == [8, 2]


def test_gradient_reaches_every_parameter():
    backbone = Timm("resnet18", output_stride=8)
    for norm in backbone.modules():  # timm begins each block as the identity: a weight of 0 stops the gradient once
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(norm.weight)
    torch.stack([f.square().mean() for f in backbone(torch.randn(2, 3, 32, 64))]).sum().backward()
    dead = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_stages_after_the_last_map_are_not_kept():
    assert not [name for name, _ in Timm("resnet18", out_indices=[1, 2]).named_parameters() if "layer3" in name]


@pytest.mark.parametrize("option", ["resnet50_dilated", "resnet18", "timm"])
def test_options_give_one_map(option: str):
    backbone = build(load([f"backbone={option}", "backbone.weights=null"]).backbone).eval()
    (feature,) = backbone(torch.zeros(1, 3, 32, 64))
    expected = {"resnet50_dilated": (2048, 8), "resnet18": (512, 8), "timm": (320, 16)}[option]
    assert (*backbone.channels, *backbone.reductions) == expected
    assert feature.shape == (1, expected[0], 32 // expected[1], 64 // expected[1])


def test_dilated_resnet50_equals_torchvision():
    torch.manual_seed(0)
    dilated = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    for norm in dilated.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(norm.running_mean, std=0.1)
    ours = Timm("resnet50", output_stride=8)
    weights = {k: v for k, v in dilated.state_dict().items() if not k.startswith("fc.")}
    ours.network.load_state_dict(weights, strict=True)
    image = torch.randn(1, 3, 40, 72)
    body = torch.nn.Sequential(*list(dilated.children())[:-2])
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image)[0], body.eval()(image), rtol=0, atol=0)


# --- weights from a file


def same_weights(backbone: Timm, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in backbone.network.state_dict().items())


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
@pytest.mark.parametrize("classifier", [True, False])
def test_local_file_is_loaded(tmp_path, library: str, kind: str, classifier: bool):
    made = timm.create_model("resnet18") if library == "timm" else torchvision.models.resnet18()
    state = {k: v.clone() for k, v in made.state_dict().items() if classifier or not k.startswith("fc.")}
    path = tmp_path / f"weights{kind}"
    torch.save(state, path) if kind == ".pth" else save_file(state, path)
    assert same_weights(Timm("resnet18", output_stride=8, weights=str(path)), state)


def test_training_checkpoint_and_classifier_of_other_classes_are_loaded(tmp_path):
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "a.pth")
    assert same_weights(Timm("resnet18", weights=str(tmp_path / "a.pth")), state)


def test_file_without_batch_counters_is_loaded(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "old.pth")
    assert same_weights(Timm("resnet18", weights=str(tmp_path / "old.pth")), state)


def test_renamed_feature_keys_are_loaded(tmp_path):
    full = timm.create_model("mobilenetv2_035")
    torch.save(full.state_dict(), tmp_path / "m.pth")
    ours = Timm("mobilenetv2_035", out_indices=[4], weights=str(tmp_path / "m.pth")).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(image)[0], full.eval().forward_intermediates(image, intermediates_only=True)[4])


def test_mismatching_file_lists_the_keys(tmp_path):
    path = tmp_path / "resnet18.pth"
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, path)
    refused("not the weights of resnet50", "missing: layer1.0.conv3.weight", "more", name="resnet50", weights=str(path))
    torch.save({f"encoder.{k}": v for k, v in state.items()}, path)
    refused(
        "missing: conv1.weight", "unexpected: encoder.conv1.weight", "What fits", name="resnet18", weights=str(path)
    )
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    refused("conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)", name="resnet18", weights=str(path))
    del state["layer4.1.bn2.bias"]
    torch.save(state, path)
    refused("1 missing: layer4.1.bn2.bias.", name="resnet18", weights=str(path))


class Harmful:
    """What a pickle may hold besides tensors."""


def test_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": Harmful()}, path)
    refused("can be read safely", "Harmful", name="resnet18", weights=str(path))
    for content in (b"", b"not a zip file"):
        path.write_bytes(content)
        refused(str(path), "can be read safely", name="resnet18", weights=str(path))
    torch.save([1, 2], path)
    refused(str(path), "can be read safely", name="resnet18", weights=str(path))
    (tmp_path / "a.safetensors").write_bytes(b"\x00" * 20)
    refused("can be read safely", name="resnet18", weights=str(tmp_path / "a.safetensors"))


def test_truncated_file_is_refused(tmp_path):
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save(timm.create_model("resnet18").state_dict(), whole)
    cut.write_bytes(whole.read_bytes()[:100_000])
    refused("cut.pth", "can be read safely", name="resnet18", weights=str(cut))


def test_missing_file_is_refused(tmp_path):
    refused("no such file", "none.pth", name="resnet18", weights=str(tmp_path / "none.pth"))
    refused("no such file", "a/folder", name="resnet18", weights="a/folder")
    refused("no such file", name="resnet18", weights=str(tmp_path))


# --- weights by name


REPOSITORY = "timm/resnet18.tv_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine that holds one network, and an empty cache; the paths that were asked for."""
    state = {k: v.clone() for k, v in torchvision.models.resnet18().state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    asked: list[str] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.path)
            if self.path.startswith(f"/api/models/{REPOSITORY}"):
                self.reply(json.dumps({"id": REPOSITORY, "sha": "a" * 40, "siblings": []}).encode())
            elif self.path == f"/{REPOSITORY}/resolve/main/model.safetensors":
                self.reply(content)
            else:
                self.send_error(404)

        do_GET = do_HEAD = answer

        def reply(self, body: bytes) -> None:
            self.send_response(200)
            for name, value in (("ETag", '"1"'), ("X-Repo-Commit", "a" * 40), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield state, asked
    server.shutdown()
    server.server_close()


def use_hub(monkeypatch, address: str, cache) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_tag_is_downloaded_once_and_then_read_from_the_cache(hub):
    state, asked = hub
    assert same_weights(Timm("resnet18", output_stride=8, weights="tv_in1k"), state)
    assert asked
    del asked[:]
    assert same_weights(Timm("resnet18", output_stride=8, weights="tv_in1k"), state)
    assert asked == []


def test_weights_that_the_hub_does_not_have_are_an_error(hub):
    refused("resnet18.a1_in1k", "local file", name="resnet18", weights="imagenet")


@pytest.fixture
def no_retries(monkeypatch):
    """Fails the test where a download is begun, which would retry for a minute."""

    def download(*_, **__):
        raise AssertionError("a download was begun")

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)


@pytest.mark.parametrize("weights", ["imagenet", "a1_in1k"])
def test_no_network_is_an_error_at_once(tmp_path, monkeypatch, no_retries, weights: str):
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)  # nothing listens on the discard port
    refused(
        f"backbone.weights={weights}", "resnet18.a1_in1k", "127.0.0.1:9", "local file", name="resnet18", weights=weights
    )


def test_offline_mode_is_obeyed(hub, monkeypatch, no_retries):
    _, asked = hub
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("resnet18.tv_in1k", "offline", name="resnet18", weights="tv_in1k")
    assert asked == []


def test_network_that_swallows_everything_is_an_error(tmp_path, monkeypatch, no_retries):
    release = threading.Event()
    monkeypatch.setattr(module, "HfApi", lambda **_: release.wait())  # as looking up a name may
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    refused("no answer within 0.1 s", "local file", name="resnet18", weights="imagenet")
    release.set()


def test_weights_kept_elsewhere_are_an_error():
    away = next(name for name in timm.list_pretrained() if not module.get_pretrained_cfg(name).hf_hub_id)
    name, _, tag = away.partition(".")
    refused("does not keep them", "local file", name=name, out_indices=[0], weights=tag)


def test_unknown_tag_names_the_nearest():
    refused("Did you mean tv_in1k?", "imagenet, a1_in1k", name="resnet18", weights="tv_in1")
    bare = next(n for n in timm.list_models() if not timm.list_pretrained(f"{n}.*"))
    refused("There are: none", name=bare, weights="imagenet")


# --- names, strides, indices


def test_unknown_name_names_the_nearest():
    refused("Did you mean resnet50?", name="resnet500")
    refused("backbone.name=resnet18 backbone.weights=a1_in1k", name="resnet18.a1_in1k")


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 7), ("vgg11", 8), ("hrnet_w18_small", 8)])
def test_impossible_stride_is_refused(name: str, stride: int):
    refused(f"output_stride={stride}", name, "8, 16 or 32", name=name, output_stride=stride)


@pytest.mark.parametrize("indices", [[], [4, 1], [1, 1], [-1]])
def test_indices_must_ascend(indices: list[int]):
    refused("ascending", name="resnet18", out_indices=indices)


def test_index_beyond_the_last_map_is_refused():
    refused("maps 0 to 4", "64, 64, 128, 256, 512", name="resnet18", out_indices=[4, 5])


def test_wrong_option_is_refused_before_weights_are_asked_for(hub):
    _, asked = hub
    refused("output_stride=5", name="resnet18", output_stride=5, weights="tv_in1k")
    assert asked == []
