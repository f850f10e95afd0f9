"""The command line ``pyframe`` (L6): train, predict, doctor, ops, launch."""

from .main import main

__all__ = ["main"]
