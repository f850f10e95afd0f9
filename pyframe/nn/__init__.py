"""Modules, initialisation and functional forms (L5). Imports tensor, autograd and ops; imported by L6."""
from . import functional, init
from .containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from .linear import Bilinear, Flatten, Identity, Linear, Unflatten
from .module import Module
from .parameter import Buffer, Parameter
