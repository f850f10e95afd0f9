"""``utils.data``: see :mod:`pyframe.data` (L6)."""

from ...data import *  # the same namespace under PyTorch's name
from ...data import __all__  # noqa: F401
