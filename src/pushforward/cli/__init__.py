"""The command line; it imports torch and its like only where a command needs them."""

from .app import main

__all__ = ["main"]
