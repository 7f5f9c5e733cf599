"""Flow-based generative models: exact densities learned from data."""

__version__ = "0.1.0"
