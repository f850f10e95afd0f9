"""The command line ``pyframe`` (L6): train, predict, doctor, ops."""

from .main import main

__all__ = ["main"]
