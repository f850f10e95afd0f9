"""The transformer of Vaswani et al. (2017) as modules."""
# ruff: noqa: D101, D102  (forward and extra_repr: see Module; shared docstrings)

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ..device import as_device
from ..dtypes import as_dtype, get_default_dtype
from ..errors import ArgumentError, ShapeError, fail
from ..tensor import Tensor
from ..tensor.tensor import make
from . import functional as F
from . import fusing, init
from .attention import MultiheadAttention
from .containers import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .normalization import LayerNorm

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]


def _activation(value: Any) -> Callable:
    if not isinstance(value, str):
        return value
    if value not in ("relu", "gelu"):
        fail(ArgumentError, "transformer", f"activation should be relu/gelu, not {value}")
    return getattr(F, value)


def _copies(module: Module, count: int) -> ModuleList:
    return ModuleList([copy.deepcopy(module) for _ in range(count)])


class _Layer(Module):
    """The blocks that encoder and decoder layers share.

    Args:
        d_model: features.
        nhead: heads.
        dim_feedforward: features between the two linear layers.
        dropout: probability.
        activation: ``"relu"``, ``"gelu"`` or a function.
        layer_norm_eps: of the layer norms.
        batch_first: tensors are (N, L, E) instead of (L, N, E).
        norm_first: normalise before attention and feed-forward instead of after.
        bias: whether linear layers and norms have biases.
        device, dtype: of the parameters.
    """

    self_attn: MultiheadAttention
    decoder = False

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        names = ("self_attn", "multihead_attn") if self.decoder else ("self_attn",)
        for name in names:
            attention = MultiheadAttention(
                d_model, nhead, dropout, bias=bias, batch_first=batch_first, **place
            )
            setattr(self, name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **place)
        self.norm_first = norm_first
        count = len(names) + 1
        for i in range(1, count + 1):
            norm = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
            setattr(self, f"norm{i}", norm)
        for i in range(1, count + 1):
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = _activation(activation)

    def _attend(
        self,
        attention: Any,
        dropout: Module,
        x: Tensor,
        residual: Tensor,
        memory: Tensor,
        mask: Any,
        padding: Any,
        causal: bool,
    ) -> Tensor:
        """The residual plus what x sees of memory."""
        masks = {"attn_mask": mask, "key_padding_mask": padding, "is_causal": causal}
        p = fusing.dropout_of(dropout) if fusing.on_cuda(x) else None
        if p is not None and fusing.is_attention(attention):
            return fusing.attention_residual(attention, x, memory, residual, p, **masks)
        return residual + dropout(attention(x, memory, memory, need_weights=False, **masks)[0])

    def _feed_forward(self, dropout: Module, x: Tensor, residual: Tensor) -> Tensor:
        """The residual plus the two linear layers of x."""
        first, second = self.linear1, self.linear2
        p = fusing.dropout_of(dropout) if fusing.on_cuda(x) else None
        if p is None or not fusing.is_linear(second):
            return residual + dropout(second(self.dropout(self.activation(first(x)))))
        name = fusing.activation_of(self.activation)
        if name and fusing.is_linear(first) and fusing.dropout_of(self.dropout) == 0:
            return fusing.feed_forward(first, name, second, x, residual, p)
        hidden = self.dropout(fusing.sequence((first, self.activation), x))
        return fusing.linear_residual(second, hidden, residual, p)


class TransformerEncoderLayer(_Layer):
    __doc__ = (
        "Self-attention, then two linear layers, each with a residual.\n\n"
        + str(_Layer.__doc__).partition("\n\n")[2]
    )

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        def attend(x: Tensor, residual: Tensor) -> Tensor:
            masks = (src_mask, src_key_padding_mask, is_causal)
            return self._attend(self.self_attn, self.dropout1, x, residual, x, *masks)

        x = src
        if self.norm_first:
            x = attend(self.norm1(x), x)
            return self._feed_forward(self.dropout2, self.norm2(x), x)
        x = self.norm1(attend(x, x))
        return self.norm2(self._feed_forward(self.dropout2, x, x))


class TransformerDecoderLayer(_Layer):
    __doc__ = (
        "Self-attention, attention to the encoder's output, then two linear layers, each with a "
        "residual.\n\n" + str(_Layer.__doc__).partition("\n\n")[2]
    )
    decoder = True

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        def attend(x: Tensor, residual: Tensor) -> Tensor:
            masks = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
            return self._attend(self.self_attn, self.dropout1, x, residual, x, *masks)

        def look(x: Tensor, residual: Tensor) -> Tensor:
            masks = (memory_mask, memory_key_padding_mask, memory_is_causal)
            return self._attend(self.multihead_attn, self.dropout2, x, residual, memory, *masks)

        x = tgt
        if self.norm_first:
            x = attend(self.norm1(x), x)
            x = look(self.norm2(x), x)
            return self._feed_forward(self.dropout3, self.norm3(x), x)
        x = self.norm1(attend(x, x))
        x = self.norm2(look(x, x))
        return self.norm3(self._feed_forward(self.dropout3, x, x))


class TransformerEncoder(Module):
    """A stack of encoder layers.

    Args:
        encoder_layer: is copied ``num_layers`` times.
        num_layers: number of layers.
        norm: applied at the end.
        enable_nested_tensor, mask_check: accepted for compatibility.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        x = src
        for layer in self.layers:
            x = layer(
                x,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(is_causal),
            )
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """A stack of decoder layers.

    Args:
        decoder_layer: is copied ``num_layers`` times.
        num_layers: number of layers.
        norm: applied at the end.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        x = tgt
        for layer in self.layers:
            x = layer(
                x,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal,
            )
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """Encoder and decoder.

    Args:
        d_model: features.
        nhead: heads.
        num_encoder_layers, num_decoder_layers: numbers of layers.
        dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias: as in
            :class:`TransformerEncoderLayer`.
        custom_encoder, custom_decoder: modules to use instead.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = F.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer = (
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
            device,
            dtype,
        )

        def norm() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, bias=bias, device=device, dtype=dtype)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*layer), num_encoder_layers, norm()
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*layer), num_decoder_layers, norm()
        )
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            fail(
                ShapeError,
                "Transformer",
                "the batch number of src and tgt must be equal",
                src=src,
                tgt=tgt,
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            fail(
                ShapeError,
                "Transformer",
                f"the feature number of src and tgt must be equal to d_model ({self.d_model})",
                src=src,
                tgt=tgt,
            )
        memory = self.encoder(
            src, src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """A causal mask: 0 up to the diagonal and -∞ above, (sz, sz)."""
        kind = get_default_dtype() if dtype is None else as_dtype(dtype)
        place = as_device(device)
        mask = np.triu(np.full((sz, sz), -np.inf, np.float32), 1).astype(kind)
        return make(place.backend.asarray(mask), place)
