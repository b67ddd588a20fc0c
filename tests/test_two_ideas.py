"""The picture of the two ideas: its numbers are torch's, and its page needs nothing else."""

import base64
import io
import json
import re

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ninlab.architectures import architecture
from ninlab.data import CLASS_NAMES
from ninlab.errors import NinlabError
from ninlab.networks import build
from ninlab.two_ideas import SHOWN_CHANNELS, Mixing, TwoIdeas, two_ideas

CARRIED = 0.5e-4 * 1.01  # the page carries numbers with four decimals
HEAVIEST_BYTES = 50_000
LAYER = "block1.conv2"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build(architecture("nin_28"), seed=0).eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randint(0, 256, (1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope="module")
def picture(network: nn.Module, image: Tensor) -> TwoIdeas:
    return drawn(network, image)


def drawn(network: nn.Module, image: Tensor, **changes: object) -> TwoIdeas:
    options = {
        "convolution": LAYER,
        "classes": CLASS_NAMES,
        "subject": "Noise.",
        "provenance": "Computed: here.",
    }
    return two_ideas(network, image, **{**options, **changes})


@torch.no_grad()
def layer_by_layer(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What each layer puts out, by its path, without a hook."""
    found, value = {}, image[None].float() / 255
    for path, module in network.named_modules():
        if not list(module.children()):
            value = found[path] = module(value)
    return {path: value[0] for path, value in found.items()}


def off(one: object, other: Tensor) -> float:
    return (torch.tensor(one) - other).abs().max().item()


def test_the_maps_and_weights_are_those_of_the_layer(
    network: nn.Module, image: Tensor, picture: TwoIdeas
) -> None:
    seen, of = layer_by_layer(network, image), picture.mixing
    layer = network.get_submodule(LAYER)
    assert (of.in_channels, of.out_channels) == tuple(layer.weight.shape[1::-1])
    for channel, values in of.inputs.items():
        assert off(values, seen["block1.relu1"][channel]) <= CARRIED
    for channel, values in of.outputs.items():
        assert off(values, seen[LAYER][channel]) <= CARRIED
        assert off(of.weights[channel], layer.weight[channel, list(of.inputs), 0, 0]) <= CARRIED
        assert off(of.biases[channel], layer.bias[channel]) <= CARRIED
    assert off(picture.image, image[0]) == 0


def test_the_rest_of_a_sum_is_what_the_channels_that_are_not_shown_add(
    network: nn.Module, image: Tensor, picture: TwoIdeas
) -> None:
    of, layer = picture.mixing, network.get_submodule(LAYER)
    hidden = layer_by_layer(network, image)["block1.relu1"].clone()
    hidden[list(of.inputs)] = 0
    expected = F.conv2d(hidden[None], layer.weight)[0]
    # four products of two numbers below 2, an output and a bias, each as it is carried
    carried = CARRIED * (2 + 4 * SHOWN_CHANNELS)
    for output in of.outputs:
        for row, column in ((0, 0), (5, 9), (13, 13)):
            assert off(of.rest(output, row, column), expected[output, row, column]) < carried


def test_what_is_shown_is_what_varies_most_and_what_weighs_most(
    network: nn.Module, image: Tensor, picture: TwoIdeas
) -> None:
    of, seen = picture.mixing, layer_by_layer(network, image)
    assert len(of.inputs) == len(of.outputs) == SHOWN_CHANNELS
    spread = seen[LAYER].std((1, 2)).tolist()
    left_out = set(range(of.out_channels)) - set(of.outputs)
    assert min(spread[i] for i in of.outputs) > max(spread[i] for i in left_out)
    weights = network.get_submodule(LAYER).weight[list(of.outputs), :, 0, 0].abs()
    weight = (weights.sum(0) * seen["block1.relu1"].mean((1, 2))).tolist()
    left_out = set(range(of.in_channels)) - set(of.inputs)
    assert min(weight[i] for i in of.inputs) > max(weight[i] for i in left_out)


def test_the_means_of_the_class_maps_are_the_scores_of_the_network(
    network: nn.Module, image: Tensor, picture: TwoIdeas
) -> None:
    seen = layer_by_layer(network, image)
    assert list(picture.class_maps) == list(CLASS_NAMES)
    for number, values in enumerate(picture.class_maps.values()):
        assert off(values, seen["classes.conv3"][number]) <= CARRIED
    assert off([*picture.scores.values()], seen["flatten1"]) <= CARRIED


def test_a_map_is_drawn_red_above_0_blue_below_and_not_at_all_at_0() -> None:
    values = ((2.0, 1.0), (0.0, -2.0))
    mixing = Mixing("conv", 1, 1, {0: values}, {0: values}, {0: (1.0,)}, {0: 0.0})
    page = TwoIdeas(((255.0, 0.0),) * 2, "", mixing, {"only": values}, "")._repr_html_()
    maps = {text: pixels(address) for text, address in re.findall(r'alt="(.*?)" src="(.*?)"', page)}
    assert maps["the image, 2 by 2 pixels"][:2] == [(255, 255, 255, 255), (0, 0, 0, 255)]
    for text in ("map of channel 0", "map of output 0", "map of only"):
        full, half, nothing, below = maps[text]
        assert full[:3] == half[:3] != below[:3]
        assert full[0] > full[2]
        assert below[0] < below[2]
        assert [pixel[3] for pixel in (full, half, nothing, below)] == [255, 128, 0, 255]


def pixels(address: str) -> list[tuple[int, ...]]:
    file = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(file)) as picture:
        width, height = picture.size
        return [picture.getpixel((x, y)) for y in range(height) for x in range(width)]


def test_a_page_carries_the_numbers_and_asks_for_nothing(picture: TwoIdeas) -> None:
    page = picture._repr_html_()
    assert len(page.encode()) <= HEAVIEST_BYTES
    assert not re.search(r"https?:|@import|url\(|fetch\(|import\(", page)
    assert set(re.findall(r'(?:src|href)="(.{11})', page)) == {"data:image/"}
    carried = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert carried["classes"] == {
        k: [list(row) for row in v] for k, v in picture.class_maps.items()
    }


def test_no_name_can_end_the_script_of_a_page(network: nn.Module, image: Tensor) -> None:
    names = [f"</script><b>{number}" for number in range(10)]
    page = drawn(network, image, classes=names, subject="<i>", provenance="<u>")._repr_html_()
    assert page.count("</script>") == 2
    assert not re.search("<b>0|<i>|<u>", page)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"convolution": "block1.conv1"}, "no 1x1 convolution"),
        ({"convolution": "block9"}, "'block9' is no 1x1 convolution"),
        ({"classes": CLASS_NAMES[:9]}, "averages 10 maps for 9 classes"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    network: nn.Module, image: Tensor, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(NinlabError, match=sentence):
        drawn(network, image, **changes)


def test_a_network_without_an_average_is_refused(image: Tensor) -> None:
    network = build(architecture("nin_28_linear_head"), seed=0).eval()
    with pytest.raises(NinlabError, match="does not average"):
        drawn(network, image)
