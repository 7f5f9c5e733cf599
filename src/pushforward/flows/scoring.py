"""Log-densities of many points in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import log, log2, prod

import torch
from torch import Tensor

from .estimates import Estimate
from .flow import Flow

SCORE_SEED = 0
SCORE_SAMPLES = 16
_CHUNK_ROWS = 16384
_CHUNK_ELEMENTS = 2**18
_AHEAD = 2  # parts for each thread that wait, beside the batch that is handed out next


def bits_per_dim(log_prob: Tensor, dims: int, *, unit: float = 1.0) -> Tensor:
    r"""Return bits per dimension from log-densities in nats.

    .. math:: b = -\frac{\log p(x)}{D \ln 2} - \log_2 u

    The convention is that of dequantised images: ``D`` counts every channel of every pixel, and the density is over
    values whose step from one level to the next is ``u``. Here pixels are 0 to 255 with noise in [0, 1), so ``u`` is 1
    and :math:`-\log_2 p` bounds, or estimates, the bits of the discrete image itself. For a density over pixels scaled
    to [0, 1], as in the NICE paper, ``u`` is 1/256: 1980.5 nats on MNIST are 4.36 bits.

    Args:
        log_prob: Log-densities in nats.
        dims: Number of dimensions ``D``.
        unit: Step of the values, ``u``.

    References:
        Theis et al., A note on the evaluation of generative models, 2016, section 3.1. https://arxiv.org/abs/1511.01844

    Example:
        >>> round(bits_per_dim(torch.tensor(1980.5), 784, unit=1 / 256).item(), 2)
        4.36
    """
    return -log_prob / (dims * log(2.0)) - log2(unit)


def chunk_rows(flow: Flow) -> int:
    """Return how many points to compute at once: fewer of wide ones, so that memory stays bounded.

    Example:
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> chunk_rows(build_flow(MAFConfig(layers=1, hidden=(8,)), 2))
        16384
    """
    return max(1, min(_CHUNK_ROWS, _CHUNK_ELEMENTS // prod(flow.event_shape)))


def score(
    flow: Flow, x: Tensor, context: Tensor | None = None, *, num_samples: int = SCORE_SAMPLES
) -> Estimate:
    """Return the log-density of each point, chunk by chunk and without gradient.

    Discrete elements are dequantised with one fixed set of noise vectors, the same for every point, so the score of a
    row depends neither on its place nor on what stands beside it.

    Args:
        flow: The flow.
        x: Points in the units of the data, ``(n, *event_shape)``.
        context: Their contexts, ``(n, *context_shape)``.
        num_samples: Draws of the noise for discrete elements.

    Returns:
        Log-densities in nats with their standard errors, ``(n,)`` each, and whether they are exact.

    Example:
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> flow = build_flow(MAFConfig(layers=1), 2)
        >>> score(flow, torch.zeros(3, 2)).kind
        'exact'
    """
    return _joined([_estimate(flow, part, given, num_samples) for part, given in _parts(flow, x, context)])


def score_each(
    flow: Flow, batches: Iterable[tuple[Tensor, Tensor | None]], *, num_samples: int = SCORE_SAMPLES
) -> Generator[Estimate, None, None]:
    """Yield what ``score`` returns for each batch of points and contexts, in order, and fetch the next ones meanwhile.

    Threads, as many as torch may use, each take a part of a batch alone: those who share one wait for each other. The
    next batches are fetched in the caller's thread, a few ahead, so memory does not grow with their number.

    Args:
        flow: The flow.
        batches: Points ``(n, *event_shape)`` with their contexts ``(n, *context_shape)``, or None.
        num_samples: Draws of the noise for discrete elements.

    Example:
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> flow = build_flow(MAFConfig(layers=1), 2)
        >>> [len(estimate.value) for estimate in score_each(flow, [(torch.zeros(n, 2), None) for n in (3, 1)])]
        [3, 1]
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[list[Future[Estimate]]] = deque()
    try:
        for x, context in batches:
            waiting.append(
                [pool.submit(_estimate, flow, *part, num_samples) for part in _parts(flow, x, context)]
            )
            while sum(map(len, islice(waiting, 1, None))) >= _AHEAD * threads:
                yield _joined([part.result() for part in waiting.popleft()])
        while waiting:
            yield _joined([part.result() for part in waiting.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _parts(flow: Flow, x: Tensor, context: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    most = chunk_rows(flow)
    for start in range(0, max(len(x), 1), most):
        rows = slice(start, start + most)
        yield x[rows], None if context is None else context[rows]


def _estimate(flow: Flow, x: Tensor, context: Tensor | None, num_samples: int) -> Estimate:
    generator = torch.Generator().manual_seed(SCORE_SEED)
    with torch.no_grad():
        return flow.estimate_log_prob(x, context, generator=generator, num_samples=num_samples)


def _joined(parts: Sequence[Estimate]) -> Estimate:
    return Estimate(
        torch.cat([part.value for part in parts]),
        torch.cat([part.standard_error for part in parts]),
        parts[-1].kind,
    )
