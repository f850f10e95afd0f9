"""``utils.data``: see :mod:`pyframe.data` (L6)."""

from ..data import *
from ..data import __all__  # noqa: F401
