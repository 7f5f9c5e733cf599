"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# A shared machine stands still for a second now and then: tests do not time.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# The tensors of the tests are small: threads would wait for each other longer than they compute.
torch.set_num_threads(1)


def global_state() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.fixture(autouse=True)
def _nothing_global_changes() -> Iterator[None]:
    """Fail a test after which torch behaves differently for everyone else."""
    before = global_state()
    yield
    assert global_state() == before
