"""What dropout of elements and of attention's weights share. Declares no op."""

from __future__ import annotations


def keep_threshold(p: float) -> int:
    """Words below it keep their element (see ``philox.bernoulli_mask``); 2³² keeps all."""
    return round((1 - p) * 2.0**32)


def kept_scale(p: float) -> float:
    """What is kept is multiplied with this."""
    return 0.0 if p == 1 else 1 / (1 - p)
