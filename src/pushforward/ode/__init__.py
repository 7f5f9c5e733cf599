"""Ordinary differential equations: Runge-Kutta methods, a step size for each row, and the gradient of a solve."""

from .control import Adaptive, Control, Fixed
from .gradients import GRADIENTS, solve
from .loop import Plan, Solved, System
from .tableau import METHODS, Tableau, tableau

__all__ = [
    "GRADIENTS",
    "METHODS",
    "Adaptive",
    "Control",
    "Fixed",
    "Plan",
    "Solved",
    "System",
    "Tableau",
    "solve",
    "tableau",
]
