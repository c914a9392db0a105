"""Weights under other names: which layer of a file becomes which of the model, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.weight_map import WeightMapError, match_layers
from cnnbp_cli.weights import WeightsError, WeightsFrom

CONFIGS = Path(__file__).parents[2] / "configs"
CONV, WIDE, DENSE, NORM = {"weight": (8, 8, 3, 3)}, {"weight": (8, 8, 5, 5)}, {"weight": (2, 8)}, {"weight": (8,)}


def parameters(**layers):
    """Return the parameters' shapes of layers in order, `_` in a name standing for a dot where it is doubled."""
    return {f"{layer.replace('__', '.')}.{key}": shape for layer, own in layers.items() for key, shape in own.items()}


def found(model, file, names=None, **options):
    matching = match_layers(model, file, names or {}, **options)
    return {match.layer: (match.source, match.how) for match in matching.matches}


def test_equal_names_go_first_and_a_dot_is_an_underscore():
    model = parameters(b_conv=CONV, a_conv=CONV)
    assert found(model, parameters(a__conv=CONV, b_conv=CONV)) == {
        "b_conv": ("b_conv", "name"),
        "a_conv": ("a.conv", "name"),
    }


def test_a_shape_of_its_own_needs_no_name():
    model = parameters(conv=CONV, wide=WIDE, top=DENSE)
    file = parameters(_3=DENSE, _1=WIDE, _0=CONV)
    assert found(model, file) == {"conv": ("_0", "shape"), "wide": ("_1", "shape"), "top": ("_3", "shape")}


def test_equal_shapes_go_by_the_order_of_the_file_or_of_the_names():
    model = parameters(first=CONV, second=CONV, third=CONV)
    file = parameters(features__10=CONV, features__2=CONV, features__9=CONV)
    assert [source for source, _ in found(model, file).values()] == ["features.10", "features.2", "features.9"]
    sorted_by_name = found(model, file, in_order=False)
    assert sorted_by_name["second"] == ("features.9", "order")
    assert sorted_by_name["third"] == ("features.10", "order")


def test_normalizations_follow_their_convolutions():
    """The file has the shortcut's before the branch's; by order alone the two normalizations would be exchanged."""
    model = parameters(conv=CONV, norm=NORM, wide=WIDE, norm_of_wide=NORM)
    file = parameters(x=WIDE, y=NORM, z=CONV, t=NORM)
    before = {"norm": "conv", "wide": "norm", "norm_of_wide": "wide"}
    by_neighbor = found(model, file, before=before)
    assert by_neighbor["norm"] == ("t", "neighbor")
    assert by_neighbor["norm_of_wide"] == ("y", "neighbor")


def test_other_counts_of_a_shape_are_no_match():
    matching = match_layers(parameters(a=CONV, top=DENSE), parameters(x=CONV, y=CONV, fc=DENSE), {})
    assert [(match.source, match.how) for match in matching.matches] == [(None, None), ("fc", "shape")]
    assert matching.unused == ["x", "y"]


def test_the_users_names_go_before_all_others():
    model, file = parameters(a=CONV, b=CONV, c=CONV), parameters(a=CONV, b=CONV, c=CONV)
    assert found(model, file, {"a": "b"}) == {"a": ("b", "map"), "b": ("a", "shape"), "c": ("c", "name")}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"cc": "x"}, "the model has no layer 'cc' with parameters, expected one of: a, b"),
        ({"a": "zz"}, "there is no layer 'zz', expected one of: x, y"),
        ({"a": "y"}, "y has weight 2×8, but a needs weight 8×8×3×3"),
        ({"a": "x", "b": "x"}, "'x' is given to several layers: a, b"),
    ],
)
def test_names_that_cannot_be(names, message):
    with pytest.raises(WeightMapError) as caught:
        found(parameters(a=CONV, b=CONV), parameters(x=CONV, y=DENSE), names)
    assert str(caught.value) == message


def torch_resnet(*, shortcut_first=False):
    """Return resnet-mini as torchvision would write and name it, in float64 with random statistics."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inside, outside, stride):
            super().__init__()
            shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
            if stride > 1 and shortcut_first:
                self.downsample = shortcut
            self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outside)
            self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outside)
            self.downsample = shortcut if stride > 1 else nn.Identity()

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + self.downsample(x)).relu()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            self.layer1 = nn.Sequential(Block(16, 16, 1))
            self.layer2 = nn.Sequential(Block(16, 32, 2))
            self.fc = nn.Linear(32, 10)

        def forward(self, x):
            y = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
            return self.fc(y.mean((2, 3)))

    torch.manual_seed(0)
    net = Net().double()
    for name, value in net.state_dict().items():
        if "running" in name or ".bn" in name:
            value.copy_(torch.rand_like(value.double()) + 0.5)
    return torch, net.eval()


RESNET = [f"model.layers.{name}.padding=1" for name in ("conv2d_1", "conv2d_4")]


def resnet_outputs(weights):
    """Return the logits of resnet-mini with PyTorch's padding, and the images."""
    model = cnnbp.load(CONFIGS / "resnet-mini.yaml", overrides=[*RESNET, "dtype=float64"], weights=weights)
    images = np.random.default_rng(1).normal(size=(4, 1, 28, 28))
    return np.moveaxis(model.logits(model.images_in(images)), -1, 0), images


@pytest.mark.parametrize("form", ["pt", "safetensors", "npz"])
def test_a_residual_network_of_pytorch_gives_what_it_gives_there(form, tmp_path):
    torch, net = torch_resnet()
    path = tmp_path / f"weights.{form}"
    if form == "pt":
        torch.save({"epoch": 3, "state_dict": net.state_dict()}, path)
    elif form == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(net.state_dict(), path)
    else:
        np.savez(path, **{name: value.numpy() for name, value in net.state_dict().items()})
    ours, images = resnet_outputs(WeightsFrom(path, "auto"))
    theirs = net(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_shortcut_that_was_made_first(tmp_path):
    """Its batch norm is of the same shape as two others; the convolution before it tells which it is."""
    torch, net = torch_resnet(shortcut_first=True)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    ours, images = resnet_outputs(WeightsFrom(tmp_path / "weights.pt", "auto"))
    np.testing.assert_allclose(ours, net(torch.tensor(images)).detach().numpy(), rtol=1e-10, atol=1e-10)


TOY = {"0.weight": np.ones((1, 1, 3, 3)), "0.bias": np.ones(1), "4.weight": np.ones((1, 4)), "4.bias": np.ones(1)}


def loaded(tmp_path, arrays, names=None, **options):
    """Return the toy with such weights, and what was matched."""
    np.savez(tmp_path / "weights.npz", **arrays)
    shown = []
    weights = WeightsFrom(tmp_path / "weights.npz", names, show=shown.append, **options)
    return cnnbp.load(CONFIGS / "toy.yaml", overrides=["dtype=float64"], weights=weights), shown


def test_a_file_of_names(tmp_path):
    (tmp_path / "names.yaml").write_text("conv2d_1: 0\ndense_1: '4'\n")
    model, (matching,) = loaded(tmp_path, TOY, tmp_path / "names.yaml")
    assert [match.how for match in matching.matches] == ["map", "map"]
    np.testing.assert_array_equal(model.parameters()["dense_1.weight"], 1)


def test_names_that_look_like_numbers_are_taken_as_written(tmp_path):
    arrays = {name.replace("0.", "1.10.").replace("4.", "1.1."): value for name, value in TOY.items()}
    (tmp_path / "names.yaml").write_text("conv2d_1: 1.10\ndense_1: 1.1\n")
    _, (matching,) = loaded(tmp_path, arrays, tmp_path / "names.yaml")
    assert [match.source for match in matching.matches] == ["1.10", "1.1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[conv2d_1]\n", "names.yaml:1:1: expected pairs of names, as in conv1: layer1.0.conv1, got a list of 1"),
        ("conv2d_1: [0]\n", "names.yaml:1:11: expected a name, got a list of 1"),
        ("conv2d_1: 0\nconv2d_1: 4\n", "names.yaml:2:1: duplicate key 'conv2d_1'"),
        ("conv2d_2: 0\n", "names.yaml: the model has no layer 'conv2d_2' with parameters, did you mean 'conv2d_1'?"),
    ],
)
def test_a_wrong_file_of_names(text, message, tmp_path):
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises((ConfigError, WeightsError)) as caught:
        loaded(tmp_path, TOY, tmp_path / "names.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_another_head_keeps_its_initial_values(tmp_path):
    other = TOY | {"4.weight": np.ones((7, 4)), "4.bias": np.ones(7)}
    model, (matching,) = loaded(tmp_path, other, "auto", partial=True)
    fresh = cnnbp.load(CONFIGS / "toy.yaml", overrides=["dtype=float64"]).parameters()
    assert [(match.layer, match.source) for match in matching.matches] == [("conv2d_1", "0"), ("dense_1", None)]
    assert matching.unused == ["4"]
    np.testing.assert_array_equal(model.parameters()["conv2d_1.weight"], 1)
    np.testing.assert_array_equal(model.parameters()["dense_1.weight"], fresh["dense_1.weight"])


def test_partial_weights_under_their_own_names(tmp_path):
    arrays = {"conv2d_1.weight": np.ones((1, 1, 3, 3)), "conv2d_1.bias": np.ones(1), "dense_1.weight": np.ones((3, 4))}
    model, (matching,) = loaded(tmp_path, arrays, partial=True)
    assert [match.how for match in matching.matches] == ["name", None]
    np.testing.assert_array_equal(model.parameters()["conv2d_1.bias"], 1)


@pytest.mark.parametrize("partial", [False, True])
def test_nothing_that_fits(partial, tmp_path):
    with pytest.raises(
        WeightsError, match=r"nothing in it is certain to be conv2d_1 \(weight 1×1×3×3, bias 1\), dense_1"
    ):
        loaded(tmp_path, {"x.weight": np.ones((5, 5))}, "auto", partial=partial)


def test_a_head_that_does_not_fit_names_both_sides_and_the_remedies(tmp_path):
    other = TOY | {"4.weight": np.ones((7, 4)), "4.bias": np.ones(7)}
    with pytest.raises(WeightsError) as caught:
        loaded(tmp_path, other, "auto")
    assert str(caught.value) == (
        f"{tmp_path}/weights.npz: nothing in it is certain to be dense_1 (weight 1×4, bias 1); unmatched in the file: "
        "4 (weight 7×4, bias 7); name pairs in a YAML file for --map, as in `conv1: layer1.0.conv1`; --partial keeps "
        "the initial values of the rest"
    )


def test_without_a_map_the_names_have_to_be_the_models(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no parameter '0.weight'.*; --map auto matches layers by kind"):
        loaded(tmp_path, TOY)


def test_values_that_are_not_finite_are_named_as_in_the_file(tmp_path):
    with pytest.raises(WeightsError, match=r"weights.npz: parameter 4.bias has values that are not finite"):
        loaded(tmp_path, TOY | {"4.bias": np.array([np.nan])}, "auto")


def test_a_whole_module_is_not_unpickled(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match=r"could run code; save its state dict: torch.save\(model.state_dict\(\)"):
        cnnbp.load(CONFIGS / "toy.yaml", weights=tmp_path / "module.pt")


def test_a_tensor_is_no_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(WeightsError, match=r"tensor.pt: holds no state dict"):
        cnnbp.load(CONFIGS / "toy.yaml", weights=tmp_path / "tensor.pt")


def test_damaged_files_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"0.weight": torch.ones(3)}, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    for damaged in (content[:-30], content[: len(content) // 2], b"\x80\x02hello", content[:200] + content[260:]):
        (tmp_path / "damaged.pt").write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"damaged.pt: "):
            cnnbp.load(CONFIGS / "toy.yaml", weights=tmp_path / "damaged.pt")


def test_half_precision_becomes_the_models(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.tensor(value).bfloat16() for name, value in TOY.items()}, tmp_path / "half.pt")
    model = cnnbp.load(CONFIGS / "toy.yaml", weights=WeightsFrom(tmp_path / "half.pt", "auto"))
    np.testing.assert_array_equal(model.parameters()["conv2d_1.weight"], np.ones((1, 1, 3, 3), np.float32))


def test_without_pytorch_a_file_of_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "old.pt").write_bytes(b"\x80\x02")
    with pytest.raises(WeightsError, match=r"pip install 'cnnbp\[torch\]'; or save safetensors where PyTorch is"):
        cnnbp.load(CONFIGS / "toy.yaml", weights=tmp_path / "old.pt")
