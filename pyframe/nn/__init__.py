"""Modules, functional forms, initialisation (L5). Imports tensor, autograd, ops; used by L6."""

from typing import Any as _Any

from . import functional as functional
from . import init as init
from . import utils as utils
from .activation import *
from .attention import *
from .containers import *
from .convolution import *
from .dropout import *
from .embedding import *
from .linear import *
from .loss import *
from .module import *
from .normalization import *
from .padding import *
from .parameter import *
from .pooling import *
from .recurrent import *
from .recurrent_cells import *
from .resampling import *
from .transformer import *


def __getattr__(name: str) -> _Any:
    # PyTorch's place for what needs process groups or devices; loaded when it is asked for.
    if name in ("DataParallel", "SyncBatchNorm"):
        from .. import parallel

        return getattr(parallel, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
