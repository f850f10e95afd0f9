"""PyTorch's second place for data parallelism: see :mod:`pyframe.parallel`."""

from ..parallel import DataParallel, DistributedDataParallel

__all__ = ["DataParallel", "DistributedDataParallel"]
