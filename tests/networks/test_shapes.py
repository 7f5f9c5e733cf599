"""Checks of shapes hold for sizes that are symbols as well."""

from __future__ import annotations

import torch

from pushforward.transforms import Planar


def test_checks_know_a_symbolic_size_that_equals_a_plain_one() -> None:
    torch.manual_seed(0)
    planar = Planar(2, context_features=3)
    torch._dynamo.reset()
    compiled = torch.compile(planar.forward, backend="aot_eager", fullgraph=True)
    context = torch.randn(4, 3)
    for x in (torch.randn(3, 4, 2), torch.randn(4, 2)):
        torch._dynamo.maybe_mark_dynamic(x, x.ndim - 2)
        y, log_abs_det = compiled(x, context)
        expected, log_expected = planar.forward(x, context)
        assert torch.allclose(y, expected)
        assert torch.allclose(log_abs_det, log_expected)
