"""Look-up tables of vectors."""
# ruff: noqa: D102  (forward and extra_repr are documented at Module)

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, ShapeError, fail
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter, empty_parameter

__all__ = ["Embedding"]


class Embedding(Module):
    """weight[input]: a learned vector for every index.

    Args:
        num_embeddings: number of vectors.
        embedding_dim: their length.
        padding_idx: index whose vector starts as zeros and gets no gradient.
        max_norm: scale vectors that are longer down to this norm, in place, when they are used.
        norm_type: p of that norm.
        scale_grad_by_freq: divide gradients by how often the index occurs in the batch.
        sparse: accepted for compatibility; gradients are always dense.
        _weight: initial table.
        _freeze: make the table not require grad.
        device, dtype: of the table.

    The table starts normal with σ = 1.

    Raises:
        ValueError: if ``padding_idx`` is out of range.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                fail(
                    ArgumentError,
                    "Embedding",
                    f"padding_idx must be within num_embeddings ({num_embeddings})",
                    padding_idx=padding_idx,
                )
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if _weight is None:
            self.weight = empty_parameter(
                num_embeddings,
                embedding_dim,
                device=device,
                dtype=dtype,
                requires_grad=not _freeze,
            )
            self.reset_parameters()
            return
        if tuple(_weight.shape) != (num_embeddings, embedding_dim):
            fail(
                ShapeError,
                "Embedding",
                "the given weight does not have the shape (num_embeddings, embedding_dim)",
                weight=_weight,
                num_embeddings=num_embeddings,
                embedding_dim=embedding_dim,
            )
        self.weight = Parameter(_weight, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.array[self.padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq is not False:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        return text + (", sparse=True" if self.sparse is not False else "")

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Any:
        """An Embedding with a given table.

        Args:
            embeddings: the table, shape (num_embeddings, embedding_dim).
            freeze: do not train it.
            padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse: as in :class:`Embedding`.

        Raises:
            ValueError: if ``embeddings`` does not have two dimensions.
        """
        if embeddings.ndim != 2:
            fail(
                ArgumentError,
                "Embedding.from_pretrained",
                "the table must have 2 dimensions",
                embeddings=embeddings,
            )
        rows, columns = embeddings.shape
        return cls(
            rows,
            columns,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight=embeddings,
            _freeze=freeze,
        )
