"""Modules, functional forms and initialisation (L5). Imports tensor, autograd and ops; used by L6."""

from . import functional, init, utils
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
from .resampling import *
from .transformer import *
