"""Explicit Runge-Kutta methods as their tableaus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tableau:
    r"""An explicit Runge-Kutta method,

    .. math:: k_i = f(t + c_i h,\ u + h \sum_{j<i} a_{ij} k_j), \qquad u' = u + h \sum_i b_i k_i,

    with the error estimate :math:`h \sum_i e_i k_i` where there is an embedded method.

    Attributes:
        name: What it is called.
        order: Its order.
        a: Rows of the strictly lower triangle.
        b: Weights of the stages.
        c: Times of the stages.
        e: Weights of the error estimate, or None.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.1.
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    e: tuple[float, ...] | None = None

    @property
    def fsal(self) -> bool:
        """Whether the last stage is the first of the next step."""
        return len(self.a) > 1 and self.c[-1] == 1.0 and (*self.a[-1], 0.0) == self.b

    def without_estimate(self) -> Tableau:
        """Return the method without its error estimate, and without the last stages that only this needs."""
        stages = max(i for i, weight in enumerate(self.b) if weight != 0.0) + 1
        return Tableau(self.name, self.order, self.a[:stages], self.b[:stages], self.c[:stages])


_DOPRI5 = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
_DOPRI4 = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_BOSH3 = (2 / 9, 1 / 3, 4 / 9, 0.0)
_BOSH2 = (7 / 24, 1 / 4, 1 / 3, 1 / 8)

METHODS: dict[str, Tableau] = {
    "euler": Tableau("euler", 1, ((),), (1.0,), (0.0,)),
    "midpoint": Tableau("midpoint", 2, ((), (0.5,)), (0.0, 1.0), (0.0, 0.5)),
    # With Euler's method embedded.
    "heun": Tableau("heun", 2, ((), (1.0,)), (0.5, 0.5), (0.0, 1.0), (-0.5, 0.5)),
    # Bogacki & Shampine, A 3(2) pair of Runge-Kutta formulas, 1989.
    "bosh3": Tableau(
        "bosh3",
        3,
        ((), (0.5,), (0.0, 0.75), (2 / 9, 1 / 3, 4 / 9)),
        _BOSH3,
        (0.0, 0.5, 0.75, 1.0),
        tuple(b - d for b, d in zip(_BOSH3, _BOSH2, strict=True)),
    ),
    "rk4": Tableau(
        "rk4",
        4,
        ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
        (0.0, 0.5, 0.5, 1.0),
    ),
    # Dormand & Prince, A family of embedded Runge-Kutta formulae, 1980.
    "dopri5": Tableau(
        "dopri5",
        5,
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            _DOPRI5[:6],
        ),
        _DOPRI5,
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        tuple(b - d for b, d in zip(_DOPRI5, _DOPRI4, strict=True)),
    ),
}
"""Methods by name."""


def tableau(name: str) -> Tableau:
    """Return the method of a name.

    Raises:
        ValueError: No method has the name.

    Example:
        >>> tableau("dopri5").order
        5
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]
