"""Transforms that break the contract must not pass: each is caught by the law that is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cases import CONTEXT, FEATURES, contexts, fresh, points
from laws import (
    check_batch_is_a_loop,
    check_compiles,
    check_gradients,
    check_log_det,
    check_moves,
    check_round_trip,
    check_same,
    check_shapes,
)
from pushforward.evaluate.jacobians import local_lipschitz
from pushforward.transforms import Affine, Elementwise, Transform


class Broken(Transform):
    """An affine map of the context, one part of which is wrong."""

    def __init__(self) -> None:
        super().__init__((FEATURES,), context_shape=(CONTEXT,))
        self.inner = Elementwise(Affine(), (FEATURES,), context_features=CONTEXT, hidden=(8,))
        for p in self.inner.parameters():
            nn.init.normal_(p)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.inner._forward(x, context)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.inner._inverse(y, context)


class WrongSign(Broken):
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_abs_det = super()._forward(x, context)
        return y, -log_abs_det


class WrongBothWays(Broken):
    """The two log-determinants still cancel."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_abs_det = super()._forward(x, context)
        return y, 1.01 * log_abs_det

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_abs_det = super()._inverse(y, context)
        return x, 1.01 * log_abs_det


class WrongInverseOnly(Broken):
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_abs_det = super()._inverse(y, context)
        return x, log_abs_det + 1e-6


class ForwardTwice(Broken):
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._forward(y, context)


class SlightlyOff(Broken):
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_abs_det = super()._inverse(y, context)
        return x + 1e-6, log_abs_det


class SeesTheBatch(Broken):
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_abs_det = super()._forward(x, context)
        return y + 1e-3 * x.reshape(-1, FEATURES).mean(0), log_abs_det


class FirstContextForAll(Broken):
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        assert context is not None
        return super()._forward(x, context[:1] if context.ndim > 1 else context)


class OneLogDet(Broken):
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_abs_det = super()._forward(x, context)
        return y, log_abs_det.mean()


class Detached(Broken):
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x, log_abs_det = super()._inverse(y, context)
        return x + 0 * y, log_abs_det


class Forgets(Broken):
    """Keeps what it needs outside of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.randn(FEATURES).tolist()

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_abs_det = super()._forward(x, context)
        return y + y.new_tensor(self.hidden), log_abs_det


class StaysBehind(Broken):
    """Keeps a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.zeros(FEATURES, dtype=torch.float64)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return super()._forward(x + self.offset, context)


class MakesItsOwn(Broken):
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return super()._forward(x + torch.zeros(FEATURES, dtype=x.dtype), context)


class ReadsValues(Broken):
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if bool((x > 1e30).any()):
            x = x / 2
        return super()._forward(x, context)


BROKEN = [
    (WrongSign, "log_det", "forward: log_abs_det is wrong"),
    (WrongBothWays, "log_det", "forward: log_abs_det is wrong"),
    (WrongInverseOnly, "log_det", "inverse: log_abs_det is wrong"),
    (ForwardTwice, "round_trip", "is not x"),
    (SlightlyOff, "round_trip", "is not x"),
    (SeesTheBatch, "loop", "not close"),
    (FirstContextForAll, "loop", "not close|makes no difference"),
    (OneLogDet, "shapes", "log_abs_det has shape"),
    (Detached, "gradients", "is 0|no gradient reaches"),
    (Forgets, "reload", "computes something else"),
    (StaysBehind, "moves", "FakeTensor|two devices"),
    (MakesItsOwn, "moves", "tensors of two devices meet"),
    (ReadsValues, "compile", "data-dependent|Data-dependent"),
]


def apply_law(law: str, build: type[Transform]) -> None:
    transform, other = (fresh(build, seed).double() for seed in (0, 1))
    assert isinstance(transform, Transform) and isinstance(other, Transform)
    x = points("elementwise-affine", 4)
    context = contexts(transform, 4)
    if law == "log_det":
        check_log_det(transform, x, context, 1e-8)
    elif law == "round_trip":
        check_round_trip(transform, x, context, 1e-9, local_lipschitz(transform, x, context))
    elif law == "loop":
        check_batch_is_a_loop(transform, x, context)
    elif law == "shapes":
        check_shapes(
            transform, lambda *b: points("elementwise-affine", *b), lambda *b: contexts(transform, *b)
        )
    elif law == "gradients":
        check_gradients(transform, x, context)
    elif law == "reload":
        other.load_state_dict(transform.state_dict())
        check_same(transform, other, x, context)
    elif law == "moves":
        check_moves(transform, x, context)
    else:
        check_compiles(transform, "forward", x, context)


@pytest.mark.parametrize("law", dict.fromkeys(law for _, law, _ in BROKEN))
def test_the_laws_pass_what_is_whole(law: str) -> None:
    apply_law(law, Broken)


@pytest.mark.parametrize(("build", "law", "message"), BROKEN, ids=lambda v: getattr(v, "__name__", None))
def test_the_laws_refuse_what_is_broken(build: type[Transform], law: str, message: str) -> None:
    expected = torch._dynamo.exc.TorchDynamoException if law == "compile" else AssertionError
    with pytest.raises(expected, match=message):
        apply_law(law, build)
