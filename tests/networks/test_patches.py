"""Networks that slide over images, against torch's convolutions, and their kernels against their formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from case_parts import seeded
from pushforward.kernels.patches import gather, squares
from pushforward.networks import CausalPatchMLP, PatchMLP, PictureEmbedding, ResidualConvNet


def randomised(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(0.4 * torch.randn(p.shape, generator=seeded(i)))
    return net


def kernel_of(weight: torch.Tensor, channels: int, side: int) -> torch.Tensor:
    """The weight of a convolution from that of a matrix whose columns are rows, then columns, then channels."""
    return weight.reshape(-1, side, side, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("patch", "spread", "height"), [(3, 3, 5), (5, 1, 6), (1, 3, 1), (3, 1, 2)])
def test_a_patch_mlp_is_a_stack_of_convolutions(
    patch: int, spread: int, height: int, dtype: torch.dtype
) -> None:
    net = randomised(PatchMLP(2, 3, hidden=(6, 7), patch=patch, spread=spread)).to(dtype)
    x = torch.randn((30, 2, height, 4), generator=seeded(), dtype=dtype)
    first, (_, second), (_, last) = net.mlp.first, net.mlp.rest[0], net.mlp.rest[1]  # type: ignore[union-attr, misc]
    h = F.relu(F.conv2d(x, kernel_of(first.weight, 2, patch), first.bias, padding=patch // 2))
    h = F.relu(F.conv2d(h, second.weight[..., None, None], second.bias))
    # What a pixel writes to its neighbour below is what this one reads above.
    weight = last.weight.reshape(spread, spread, 3, 7).flip(0, 1).permute(2, 3, 0, 1)
    bias = last.bias.reshape(spread, spread, 3)
    expected = F.conv2d(h, weight, padding=spread // 2)
    written = gather(bias.flatten().expand(1, height, 4, -1), 3, spread).movedim(-1, 1)
    torch.testing.assert_close(net(x), expected + written, rtol=1e-4, atol=1e-5)


@given(st.sampled_from([1, 3, 5]), st.data())
def test_kernels_are_their_formulas_and_adjoint_to_each_other(side: int, data: st.DataObject) -> None:
    channels, extra = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2))
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    count = data.draw(st.integers(1, side**2 * channels))
    images = 130  # enough for a kernel
    x = torch.randn((images, height, width, channels), generator=seeded(1)).requires_grad_()
    beside = torch.randn((images, height, width, extra), generator=seeded(2)) if extra else None
    y = torch.randn((images, height, width, count + extra), generator=seeded(3)).requires_grad_()
    rows, image = squares(x, side, beside, count=count), gather(y, channels, side, count=count)
    exact = squares(x.double(), side, None if beside is None else beside.double(), count=count)
    torch.testing.assert_close(rows.double(), exact, rtol=0, atol=0)
    torch.testing.assert_close(
        image.double(), gather(y.double(), channels, side, count=count), rtol=1e-5, atol=1e-5
    )
    inner = [
        (rows[..., :count].double() * y[..., :count].double()).sum(),
        (image.double() * x.double()).sum(),
    ]
    torch.testing.assert_close(*inner, rtol=1e-4, atol=1e-3)
    (g_x,) = torch.autograd.grad(rows, x, y.detach(), create_graph=True)
    torch.testing.assert_close(g_x, gather(y.detach(), channels, side, count=count), rtol=1e-5, atol=1e-5)
    (g_y,) = torch.autograd.grad(image, y, x.detach())
    torch.testing.assert_close(g_y[..., :count], squares(x, side, count=count), rtol=1e-5, atol=1e-5)
    assert not g_y[..., count:].any()


def test_a_causal_network_sees_only_what_comes_before_in_its_window() -> None:
    net = randomised(CausalPatchMLP(1, 2, size=(6, 7), hidden=(8,), radius=2)).double()
    x = torch.randn((1, 1, 6, 7), generator=seeded(), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda t: net(t).sum(1), x)[0, :, :, 0, 0]
    for r in range(6):
        for q in range(7):
            seen = {tuple(place) for place in jacobian[r, q].abs().gt(1e-12).nonzero().tolist()}
            above = {(i, j) for i in (r - 2, r - 1) for j in range(q - 2, q + 3)}
            before = {(r, q - 2), (r, q - 1)}
            assert seen == {(i, j) for i, j in above | before if i >= 0 and 0 <= j < 7}


@pytest.mark.parametrize(
    "net", [PatchMLP(1, 2, context_shape=(3, 2, 2)), ResidualConvNet(1, 2, context_shape=(3, 2, 2), blocks=1)]
)
def test_a_picture_of_another_size_is_given_at_its_place(net: nn.Module) -> None:
    net = randomised(net).double()
    x = torch.zeros((1, 1, 8, 8), dtype=torch.float64)
    picture = torch.randn((1, 3, 2, 2), generator=seeded(), dtype=torch.float64)
    changed = picture.clone()
    changed[..., 0, 0] += 1.0
    difference = (net(x, changed) - net(x, picture)).abs().sum(1)[0]
    assert difference[:2, :2].min() > 0 and not difference[-1, -1].any()


def test_one_context_for_many_images_is_that_of_each() -> None:
    for net in map(
        randomised, (PatchMLP(1, 2, context_shape=(3,)), ResidualConvNet(1, 2, context_shape=(3,)))
    ):
        x, context = (
            torch.randn((4, 5, 1, 6, 6), generator=seeded()),
            torch.randn((5, 3), generator=seeded(1)),
        )
        torch.testing.assert_close(net(x, context), net(x, context.expand(4, 5, 3)), rtol=1e-5, atol=1e-5)


def test_an_embedding_is_mirrored_towards_the_seam() -> None:
    plain, turned = (PictureEmbedding((1, 6, 8), mirror=m) for m in ((), (-2,)))
    turned.load_state_dict(plain.state_dict())
    picture = torch.randn((2, 3, 1, 6, 8), generator=seeded())
    torch.testing.assert_close(turned(picture), plain(picture).flip(-2))


@pytest.mark.parametrize("wrong", [{"patch": 2}, {"spread": 0}])
def test_an_even_side_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be odd and at least 1"):
        PatchMLP(1, 1, **wrong)
