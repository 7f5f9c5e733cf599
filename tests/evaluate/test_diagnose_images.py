"""Diagnoses of images: estimates where no Jacobian can be written down, contexts of any shape, and pixels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pushforward import Flow, diagnose
from pushforward.configs import ImageGlowConfig, ImageSchema, NSFCouplingConfig
from pushforward.distributions import DiagonalNormal
from pushforward.evaluate.jacobians import (
    jacobian,
    largest_singular_value,
    local_lipschitz,
    pushed,
    strongest,
)
from pushforward.flows.image import image_flow
from pushforward.report.diagnosis import plot_diagnosis
from pushforward.transforms import Affine, Chain, Coupling, Elementwise, LULinear, MultiScale, Transform
from pushforward.transforms.walk import walk

SMALL = ImageGlowConfig(scales=2, steps=1, hidden_channels=8, coupling="spline", bins=4)


def pictures(rows: int, shape: tuple[int, ...], levels: int, seed: int = 0) -> Tensor:
    """Return bright discs on black."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand((3, rows, 1, 1, 1), generator=generator, dtype=torch.float64)
    y = torch.arange(shape[-2], dtype=torch.float64)[:, None] / shape[-2]
    x = torch.arange(shape[-1], dtype=torch.float64) / shape[-1]
    disc = torch.sigmoid(20 * (0.2 + 0.2 * place[2] - ((y - place[0]) ** 2 + (x - place[1]) ** 2).sqrt()))
    return (disc * (levels - 1)).round().expand(rows, *shape).clone()


def contexts(schema: ImageSchema, rows: int) -> Tensor | None:
    if schema.context_shape is None:
        return None
    if schema.given == "class":
        return torch.nn.functional.one_hot(torch.arange(rows) % len(schema.classes)).double()
    return pictures(rows, schema.context_shape, schema.levels, seed=1)


def fitted(
    schema: ImageSchema, model: ImageGlowConfig = SMALL, rows: int = 40
) -> tuple[Flow, Tensor, Tensor | None]:
    """Return a flow initialised on pictures, with shaken weights, the pictures and their contexts."""
    torch.manual_seed(0)
    flow = image_flow(model, schema)
    x, context = pictures(rows, schema.event_shape, schema.levels), contexts(schema, rows)
    assert flow.surjection is not None and flow.preprocess is not None
    encoded, _ = flow.surjection.encode(x, generator=torch.Generator().manual_seed(0))
    flow.preprocess.transform.initialize(encoded)
    z, _ = flow.preprocess(encoded, flow.like)
    given = context
    if given is not None and flow.context_preprocess is not None:
        given, _ = flow.context_preprocess(given, flow.like)
    flow.initialize(z, None if given is None else given.to(flow.like))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    return flow, x, context


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_power_iteration_finds_the_largest_singular_value(back: bool, units: bool) -> None:
    flow, x, _ = fitted(ImageSchema(height=8, width=8, levels=17))
    exact = flow.double()
    assert exact.preprocess is not None
    z, _ = exact.preprocess(x[:3] + 0.5, exact.like)
    direction = exact.transform.inverse if back else exact.transform.forward
    at = exact.transform(z)[0].detach() if back else z
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.rand((2, 64), generator=generator, dtype=torch.float64) + 0.5
        if units
        else torch.ones(2, 64).double()
    )
    matrix = jacobian(direction, at, None) * a / b[:, None]
    expected = largest_singular_value(matrix)
    found, v = strongest(direction, at, None, iterations=30, generator=generator, before=a, after=b)
    assert bool((found <= expected * (1 + 1e-6)).all()), "an estimate from below"
    assert bool((found > 0.95 * expected).all())
    torch.testing.assert_close((matrix @ v[..., None])[..., 0].norm(dim=1), found, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        pushed(direction, at, None, v * a), (matrix @ v[..., None])[..., 0] * b, rtol=1e-5, atol=1e-6
    )


def test_jacobians_in_pieces_and_under_pictures_are_those_at_once() -> None:
    flow, x, context = fitted(ImageSchema(height=16, width=8, levels=17, given="top"))
    exact = flow.double()
    assert exact.preprocess is not None and exact.context_preprocess is not None and context is not None
    z, _ = exact.preprocess(x[:2] + 0.5, exact.like)
    given = exact.embed(exact.context_preprocess(context[:2], exact.like)[0])
    assert given is not None
    given = given.detach()
    whole = jacobian(exact.transform.forward, z, given, context_dims=3)
    torch.testing.assert_close(jacobian(exact.transform.forward, z, given, context_dims=3, piece=10), whole)
    # One picture for all, also where the number of its channels is that of the points.
    one = jacobian(exact.transform.forward, z[:1].expand(32, 1, 8, 8), given[0], context_dims=3)
    torch.testing.assert_close(one[31], whole[0])
    to_data, to_latent = local_lipschitz(exact.transform, z, given)
    torch.testing.assert_close(to_latent, largest_singular_value(whole).clamp(min=1.0))
    assert bool((to_data >= 1).all())


GIVEN = [
    ImageSchema(height=8, width=8, levels=17, classes=("a", "b", "c"), given="class"),
    ImageSchema(height=8, width=8, levels=17, given="small"),
    ImageSchema(height=16, width=8, levels=17, given="top"),
    ImageSchema(height=20, width=20, levels=17, classes=("a", "b", "c"), given="class"),
    ImageSchema(height=20, width=20, levels=17, given="small"),
    ImageSchema(height=20, width=28, levels=17, given="left"),
]


@pytest.mark.parametrize("schema", GIVEN, ids=lambda s: f"{s.given}-{s.event_shape[1]}x{s.event_shape[2]}")
def test_contexts_of_any_shape(schema: ImageSchema) -> None:
    flow, x, context = fitted(schema)
    # Without data contexts are drawn, which the small ones show as well as the others.
    small = math.prod(flow.event_shape) <= 256
    for d in (diagnose(flow, x, context, rows=8), *([diagnose(flow, rows=8)] if small else [])):
        assert d.verdict == "sound", d.text()
        assert d.log_det.maximum < 1e-9 and d.log_det_inverse.maximum < 1e-9
        assert (d.both_ways is not None) == (d.features > 256)


def test_flat_models_of_images_are_looked_at_too() -> None:
    torch.manual_seed(0)
    flow = image_flow(
        NSFCouplingConfig(layers=2, hidden=(8,), bins=4), ImageSchema(height=20, width=20, levels=17)
    )
    d = diagnose(flow, pictures(30, (1, 20, 20), 17), rows=16)
    assert d.verdict == "sound" and len(d.pixels) == 7, d.text()


class BrokenCoupling(Coupling):
    """Its inverse forgets a thousandth of what the network says, or its log-determinant does, in one or both ways."""

    fault = ""

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_abs_det = super()._inverse(y, context)
        if self.fault == "inverse":
            x = x + 1e-3 * (x - y)
        return x, log_abs_det + (1e-3 if self.fault in ("one", "both") else 0.0)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_abs_det = super()._forward(x, context)
        return y, log_abs_det - (1e-3 if self.fault == "both" else 0.0)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("inverse", "not the inverse"), ("one", "log-determinant"), ("both", "log-determinant")],
)
def test_a_broken_coupling_of_many_elements_is_named(fault: str, words: str) -> None:
    flow, x, _ = fitted(ImageSchema(height=20, width=20, levels=17))
    place, layer = next((p, s) for p, s in walk(flow.transform) if "Coupling" in repr(s) and "scales[1]" in p)
    coupling = next(m for m in layer.modules() if isinstance(m, Coupling))
    coupling.__class__, coupling.fault = BrokenCoupling, fault  # type: ignore[assignment]
    d = diagnose(flow, x, rows=8)
    assert d.verdict == "broken" and d.blamed == (f"{place} (BrokenCoupling)",), d.text()
    assert words in d.findings[0].text


class OneLogDet(MultiScale):
    """Forgets what the first scale adds on the way back."""

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_abs_det = super()._inverse(y, context)
        return x, log_abs_det + 1.0


def test_a_whole_that_is_not_its_layers_is_found() -> None:
    flow, x, _ = fitted(ImageSchema(height=20, width=20, levels=17))
    next(m for m in flow.modules() if isinstance(m, MultiScale)).__class__ = OneLogDet
    d = diagnose(flow, x, rows=8)
    assert d.verdict == "broken" and d.blamed == ("transform (Chain)",), d.text()


def test_estimates_of_a_wide_linear_flow_are_those_of_its_matrix() -> None:
    torch.manual_seed(0)
    layer = LULinear(300)
    with torch.no_grad():
        layer.raw_log_scale[7] = -3.0
    flow = Flow(Chain([layer]), DiagonalNormal((300,)))
    d = diagnose(flow, rows=8)
    exact = flow.double()
    matrix = jacobian(exact.transform.forward, torch.zeros(1, 300, dtype=torch.float64), None)[0]
    values = torch.linalg.svdvals(matrix)
    for stretch in d.stretches:
        assert 0.9 * float(values[0]) < stretch.forward.median <= float(values[0]) * (1 + 1e-6)
        assert stretch.inverse.median == pytest.approx(1 / float(values[-1]), rel=0.05)
    assert d.verdict == "sound", d.text()
    assert "estimates from below" in d.text() and any("estimates from below" in m for m in d.not_measured)


def test_above_a_limit_no_jacobian_is_written_down() -> None:
    d = diagnose(Flow(Elementwise(Affine(), (1100,)), DiagonalNormal((1100,))), rows=8)
    assert d.verdict == "sound" and d.log_det.rows == 0, d.text()
    assert d.both_ways is not None and d.both_ways.maximum < 1e-9
    assert any("against autograd" in m for m in d.not_measured)
    assert "against autograd  " not in d.text()


class LosesWhites(Transform):
    """The identity, but bright images do not come back as they were."""

    def __init__(self, event_shape: tuple[int, ...], error: float) -> None:
        super().__init__(event_shape)
        self.error = error

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return 1.0 * x, 0.0 * x.sum((-1, -2, -3))

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        bright = ((y > 0.85) & (y < 1.05)).all(-1, True).all(-2, True).all(-3, True)
        return torch.where(bright, y + self.error, y), 0.0 * y.sum((-1, -2, -3))


@pytest.mark.parametrize(
    ("size", "error", "words"),
    [
        (8, 0.0, ""),
        (8, 0.01, "of the pixel range off"),
        (8, 1.0, "explodes"),
        (8, math.nan, "not finite"),
        (20, 1.0, "explodes"),
    ],
)
def test_pixels_of_images_that_nobody_took(size: int, error: float, words: str) -> None:
    """White images that come back wrong make a flow doubtful, and no more than that."""
    flow, x, _ = fitted(ImageSchema(height=size, width=size, levels=17, pixels="scale"))
    flow.transform = Chain([LosesWhites(flow.event_shape, error), flow.transform])
    d = diagnose(flow, x, rows=8)
    assert [p.where for p in d.pixels] == ["data", "samples", "away", "noise", "black", "white", "board"]
    assert all(p.error.maximum < 1e-4 for p in d.pixels if p.where not in ("away", "white")), d.text()
    if not words:
        assert d.verdict == "sound", d.text()
        return
    assert d.verdict == "doubtful" and d.blamed == (), d.text()
    (finding,) = [f for f in d.findings if f.level == "doubtful"]
    assert "'all white'" in finding.text and words in finding.text


def test_the_picture_of_a_diagnosis_of_images(tmp_path: Path) -> None:
    flow, x, _ = fitted(ImageSchema(height=20, width=20, levels=17))
    plot_diagnosis(diagnose(flow, x, rows=8), tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size > 10_000
