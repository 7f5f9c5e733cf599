"""Scores of batches are those of one pass, computed while the next batches are fetched, a few ahead and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cases import fresh, seeded
from pushforward.configs import MAFConfig
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Estimate, Flow, Preprocess, build_flow, score, score_each, scoring
from pushforward.surjections import Dequantise
from pushforward.transforms import Chain, CompressTails, Standardise, Transform


def flow(*, discrete: bool = False, context: int = 0) -> Flow:
    inner = fresh(lambda: build_flow(MAFConfig(layers=2, hidden=(16,)), 2, context))
    assert isinstance(inner, Flow)
    steps = Dequantise([0.0, 1.0]) if discrete else None
    return Flow(inner.transform, inner.base, preprocess=Preprocess(Standardise(2)), surjection=steps)


def points(rows: int) -> Tensor:
    x = torch.randn(rows, 2, generator=seeded(1), dtype=torch.float64)
    return torch.stack([x[:, 0], x[:, 1].round()], 1)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("context", [0, 1])
def test_batches_are_scored_as_all_at_once(
    discrete: bool, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, x = flow(discrete=discrete, context=context), points(500)
    given = torch.randn(500, 1, generator=seeded(2)) if context else None
    whole = score(f, x, given)
    monkeypatch.setattr(scoring, "_CHUNK_ROWS", 16)
    sizes = [1, 100, 7, 0, 250, 142]
    contexts = [None] * len(sizes) if given is None else given.split(sizes)
    estimates = list(score_each(f, zip(x.split(sizes), contexts, strict=True)))
    assert [len(e.value) for e in estimates] == sizes
    assert {e.kind for e in estimates} == {whole.kind}
    torch.testing.assert_close(torch.cat([e.value for e in estimates]), whole.value, atol=2e-5, rtol=1e-5)
    errors = torch.cat([e.standard_error for e in estimates])
    torch.testing.assert_close(errors, whole.standard_error, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_few_batches_are_fetched_ahead_and_no_more(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_CHUNK_ROWS", 8)
    before, fetched = torch.get_num_threads(), 0

    def batches() -> Iterator[tuple[Tensor, None]]:
        nonlocal fetched
        for _ in range(100):
            fetched += 1
            yield points(20), None  # three parts each

    torch.set_num_threads(threads)
    try:
        for handed, _ in enumerate(score_each(flow(), batches()), 1):
            assert fetched <= handed + 2 * threads
        assert fetched == 100 == handed
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


class _Failing(Transform):
    """Fails where a point is above 5, and counts the calls."""

    def __init__(self) -> None:
        super().__init__((2,))
        self.calls = 0

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if bool((x > 5).any()):
            raise RuntimeError("above 5")
        return x, x.new_zeros(len(x))

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@pytest.mark.parametrize("where", ["fetching", "computing", "using"])
def test_failures_come_through_and_end_the_work(where: str) -> None:
    transform = _Failing()
    f = Flow(transform, DiagonalNormal((2,)))
    before, running = torch.get_num_threads(), threading.active_count()

    def batches() -> Iterator[tuple[Tensor, None]]:
        for i in range(1000):
            if where == "fetching" and i == 20:
                raise OSError("gone")
            yield torch.full((3, 2), 6.0 if where == "computing" and i == 20 else 0.0), None

    def use(estimates: Iterator[Estimate]) -> None:
        for i, _ in enumerate(estimates):
            if where == "using" and i == 15:
                raise KeyboardInterrupt("stop")

    expected = {"fetching": OSError, "computing": RuntimeError, "using": KeyboardInterrupt}[where]
    message = {"fetching": "gone", "computing": "above 5", "using": "stop"}[where]
    estimates = score_each(f, batches())
    with pytest.raises(expected, match=message):
        use(estimates)
    estimates.close()
    assert torch.get_num_threads() == before
    assert threading.active_count() == running
    assert transform.calls < 100


@pytest.mark.parametrize("heavy", [[], [1], [0, 3], [0, 1, 2, 3]])
def test_preprocessing_that_passes_over_light_tails_is_its_transform(heavy: list[int]) -> None:
    tails, standardise = CompressTails(4), Standardise(4)
    x = torch.randn(200, 4, generator=seeded(5), dtype=torch.float64)
    x[:3, heavy] = torch.tensor([[1e3], [-1e8], [1e300]], dtype=torch.float64)
    whole = Chain([tails, standardise])
    whole.initialize(x)
    assert tails.heavy.nonzero().flatten().tolist() == heavy
    preprocess = Preprocess(whole)
    for batch in (x, x.reshape(20, 10, 4), x[0], x[:0]):
        expected, log_abs_det = whole.forward(batch)
        z, total = preprocess(batch, batch)
        assert torch.equal(z, expected)
        torch.testing.assert_close(total, log_abs_det, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(preprocess.inverse(z), whole.inverse(z), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    small = x[3:].clone().requires_grad_()
    torch.autograd.gradcheck(lambda x: preprocess(x, x), (small[:2],))
