"""What every library is given: one trained field, points, and what is true of them in double precision."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pushforward.data.densities import density

HIDDEN, FREQUENCIES = 64, 3
_NEARLY_EXACT = 1e-8  # tolerance of the solves in double precision


class Field(nn.Module):
    """A perceptron v(t, x) of x, t, sin kπt and cos kπt, with tanh; t is 0 at the base and 1 at the data."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * torch.arange(1.0, FREQUENCIES + 1))
        self.network = nn.Sequential(
            nn.Linear(features + 1 + 2 * FREQUENCIES, HIDDEN),
            nn.Tanh(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.Tanh(),
            nn.Linear(HIDDEN, features),
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the velocity of the rows of x, at one time or at a time for each row."""
        time = t.unsqueeze(-1)
        angles = time * self.frequencies
        time = torch.cat((time, angles.sin(), angles.cos()), -1).expand(*x.shape[:-1], -1)
        velocity: Tensor = self.network(torch.cat((x, time), -1))
        return velocity


@dataclass(frozen=True)
class Problem:
    """A field, rows, tolerances, and the truth.

    Attributes:
        field: Trained; every library takes a copy.
        x: Rows of the density that it was trained on, ``(n, 2)``.
        atol: Absolute tolerance of every solve.
        rtol: Relative tolerance of every solve.
        log_prob: Of ``x`` under the field, nearly exact.
        gradient: Of the mean of ``-log_prob`` in the weights, nearly exact.
    """

    field: Field
    x: Tensor
    atol: float
    rtol: float
    log_prob: Tensor
    gradient: Tensor


def problem(name: str, batch: int, steps: int, atol: float, rtol: float) -> Problem:
    """Train a field by flow matching on a density in the plane, and find the truth about it."""
    torch.manual_seed(0)
    field = Field()
    rows = density(name).sample(200_000, generator=torch.Generator().manual_seed(1)).float()
    optimiser = torch.optim.Adam(field.parameters(), lr=5e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=max(steps, 1))
    for _ in range(steps):
        x = rows[torch.randint(len(rows), (1024,))]
        t, noise = torch.rand(len(x)), torch.randn_like(x)
        loss = (field(t, torch.lerp(noise, x, t[:, None])) - (x - noise)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    x = density(name).sample(batch, generator=torch.Generator().manual_seed(2)).float()
    return Problem(field, x, atol, rtol, *_truth(field, x))


def _truth(field: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-densities and the gradient of minus their mean, by differentiating through a tight solve."""
    from torchdiffeq import odeint

    field = copy.deepcopy(field).double()
    start = x.double().requires_grad_()

    def dynamics(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        velocity = field(t, state[0])
        return velocity, sum(
            torch.autograd.grad(velocity[:, i].sum(), state[0], create_graph=True)[0][:, i]
            for i in range(x.shape[1])
        )

    times = torch.tensor([1.0, 0.0], dtype=torch.float64)
    z, change = odeint(
        dynamics, (start, start.new_zeros(len(x))), times, rtol=_NEARLY_EXACT, atol=_NEARLY_EXACT
    )
    values = normal_log_prob(z[-1]) + change[-1]
    gradient = torch.autograd.grad(-values.mean(), list(field.parameters()))
    return values.detach(), torch.cat([g.flatten() for g in gradient])


def normal_log_prob(z: Tensor) -> Tensor:
    """Return the standard normal's log-density of rows."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
