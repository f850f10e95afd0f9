"""PyTorch's place of ``DistributedSampler`` (L6)."""

from ...data import DistributedSampler

__all__ = ["DistributedSampler"]
