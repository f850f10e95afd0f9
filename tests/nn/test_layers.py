"""Every layer against PyTorch's: text, state, outputs, gradients of inputs and parameters."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tests.nn.compare import compare

RNG = np.random.default_rng(0)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
    pytest.mark.filterwarnings("ignore:.*batchmean"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
# Where PyTorch uses float32 constants in float64.
ROUGH = {"Hardsigmoid": 1e-7, "Hardswish": 1e-7}


def x(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def p(*shape: int) -> np.ndarray:
    return RNG.random(shape) * 0.8 + 0.1


def ints(high: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, high, shape)


def signs(*shape: int) -> np.ndarray:
    return np.where(RNG.random(shape) < 0.5, -1, 1)


LINEAR = [
    ("Linear", (5, 3), {}, [x(4, 5)]),
    ("Linear", (5, 3), {"bias": False}, [x(5)]),
    ("Linear", (5, 3), {}, [x(2, 4, 5)]),
    ("Identity", (54,), {"unused": 1}, [x(3)]),
    ("Flatten", (), {}, [x(2, 3, 4)]),
    ("Flatten", (0, 1), {}, [x(2, 3, 4)]),
    ("Unflatten", (1, (2, 3)), {}, [x(4, 6, 2)]),
    ("Bilinear", (3, 4, 5), {}, [x(2, 3), x(2, 4)]),
]

ACTIVATIONS = [
    (name, args, kwargs, [x(3, 4, 5)])
    for name, args, kwargs in [
        ("ReLU", (), {}),
        ("ReLU6", (), {}),
        ("SiLU", (), {}),
        ("Mish", (), {}),
        ("SELU", (), {}),
        ("Hardswish", (), {}),
        ("Hardsigmoid", (), {}),
        ("Hardtanh", (-0.5, 0.7), {}),
        ("LeakyReLU", (0.2,), {}),
        ("ELU", (0.7,), {}),
        ("CELU", (0.5,), {}),
        ("Threshold", (0.1, 0.2), {}),
        ("Sigmoid", (), {}),
        ("Tanh", (), {}),
        ("Tanhshrink", (), {}),
        ("Softsign", (), {}),
        ("LogSigmoid", (), {}),
        ("GELU", (), {}),
        ("GELU", ("tanh",), {}),
        ("Softplus", (2.0, 10.0), {}),
        ("Hardshrink", (0.3,), {}),
        ("Softshrink", (0.3,), {}),
        ("PReLU", (), {}),
        ("PReLU", (4,), {}),
        ("GLU", (1,), {}),
        ("Softmax", (1,), {}),
        ("Softmin", (-1,), {}),
        ("LogSoftmax", (0,), {}),
        ("Softmax2d", (), {}),
    ]
]

CONVOLUTION = [
    ("Conv1d", (4, 6, 3), {}, [x(2, 4, 9)]),
    ("Conv1d", (4, 6, 4), {"padding": "same", "dilation": 2, "groups": 2}, [x(2, 4, 9)]),
    ("Conv1d", (4, 6, 3), {"padding": 2, "padding_mode": "circular"}, [x(4, 9)]),
    ("Conv2d", (4, 6, 3), {}, [x(2, 4, 9, 8)]),
    (
        "Conv2d",
        (4, 6, (3, 2)),
        {"stride": (2, 1), "padding": (1, 2), "bias": False},
        [x(2, 4, 9, 8)],
    ),
    ("Conv2d", (4, 6, 3), {"groups": 2, "dilation": 2}, [x(4, 9, 8)]),
    ("Conv2d", (4, 6, 4), {"padding": "same"}, [x(2, 4, 9, 8)]),
    ("Conv2d", (4, 6, 4), {"padding": "same", "padding_mode": "reflect"}, [x(2, 4, 9, 8)]),
    ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "replicate"}, [x(2, 4, 9, 8)]),
    ("Conv2d", (4, 6, 3), {"padding": "valid"}, [x(2, 4, 9, 8)]),
    ("Conv3d", (2, 3, 2), {"padding": 1}, [x(2, 2, 4, 5, 3)]),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, [x(2, 4, 5)]),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, [x(2, 4, 5, 4)]),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "dilation": 2, "bias": False}, [x(2, 4, 5, 4)]),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 3}, [x(2, 4, 5, 4), [16, 13]]),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2}, [x(2, 2, 3, 4, 3)]),
]

POOLING = [
    ("MaxPool1d", (3,), {}, [x(2, 3, 10)]),
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1, "return_indices": True}, [x(2, 3, 10)]),
    ("MaxPool2d", (2,), {}, [x(2, 3, 7, 8)]),
    ("MaxPool2d", ((3, 2),), {"stride": 2, "padding": 1, "ceil_mode": True}, [x(2, 3, 7, 8)]),
    ("MaxPool2d", (2,), {"dilation": 2, "return_indices": True}, [x(2, 3, 7, 8)]),
    ("MaxPool3d", (2,), {}, [x(2, 3, 4, 5, 6)]),
    ("AvgPool1d", (3,), {"padding": 1}, [x(2, 3, 10)]),
    ("AvgPool2d", (2,), {}, [x(2, 3, 7, 8)]),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, [x(2, 3, 7, 8)]),
    ("AvgPool2d", (2,), {"divisor_override": 3}, [x(3, 7, 8)]),
    ("AvgPool3d", (2,), {}, [x(2, 3, 4, 5, 6)]),
    ("AdaptiveAvgPool1d", (4,), {}, [x(2, 3, 10)]),
    ("AdaptiveAvgPool2d", ((3, None),), {}, [x(2, 3, 7, 8)]),
    ("AdaptiveAvgPool2d", (1,), {}, [x(2, 3, 7, 8)]),
    ("AdaptiveAvgPool3d", (2,), {}, [x(2, 3, 4, 5, 6)]),
    ("AdaptiveMaxPool1d", (4,), {}, [x(2, 3, 10)]),
    ("AdaptiveMaxPool2d", (3,), {"return_indices": True}, [x(2, 3, 7, 8)]),
]

NORMALIZATION = [
    ("BatchNorm1d", (4,), {}, [x(6, 4)]),
    ("BatchNorm1d", (4,), {"momentum": None, "affine": False}, [x(6, 4, 3)]),
    ("BatchNorm2d", (4,), {"momentum": 0.3, "eps": 1e-3}, [x(6, 4, 3, 2)]),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, [x(6, 4, 3, 2)]),
    ("BatchNorm2d", (4,), {"bias": False}, [x(6, 4, 3, 2)]),
    ("BatchNorm3d", (2,), {}, [x(3, 2, 3, 2, 2)]),
    ("LayerNorm", (5,), {}, [x(3, 4, 5)]),
    ("LayerNorm", ((4, 5),), {"bias": False, "eps": 1e-3}, [x(3, 4, 5)]),
    ("LayerNorm", (5,), {"elementwise_affine": False}, [x(3, 5)]),
    ("RMSNorm", (5,), {}, [x(3, 4, 5)]),
    ("RMSNorm", ([4, 5],), {"eps": 1e-3}, [x(3, 4, 5)]),
    ("GroupNorm", (2, 6), {}, [x(3, 6, 4)]),
    ("GroupNorm", (3, 6), {"affine": False}, [x(3, 6, 4, 2)]),
    ("InstanceNorm1d", (4,), {}, [x(3, 4, 6)]),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, [x(3, 4, 6, 2)]),
    ("InstanceNorm2d", (4,), {}, [x(4, 6, 2)]),
    ("InstanceNorm3d", (2,), {"affine": True}, [x(3, 2, 3, 2, 2)]),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, [x(2, 6, 4)]),
]

OTHERS = [
    ("Embedding", (7, 4), {}, [ints(7, 3, 5)]),
    ("Embedding", (7, 4), {"padding_idx": -2}, [ints(7, 3, 5)]),
    ("Embedding", (7, 4), {"scale_grad_by_freq": True}, [ints(7, 3, 5)]),
    ("Embedding", (7, 4), {"max_norm": 1.0}, [ints(7, 3, 5)]),
    ("ZeroPad1d", (2,), {}, [x(2, 3, 4)]),
    ("ZeroPad2d", ((1, 2, 0, 1),), {}, [x(2, 3, 4, 5)]),
    ("ConstantPad1d", ((1, 2), 3.5), {}, [x(2, 3, 4)]),
    ("ConstantPad2d", (1, 3.5), {}, [x(2, 3, 4, 5)]),
    ("ConstantPad3d", (1, 3.5), {}, [x(2, 3, 4, 5)]),
    ("ReflectionPad1d", (2,), {}, [x(2, 3, 4)]),
    ("ReflectionPad2d", ((1, 2, 0, 1),), {}, [x(2, 3, 4, 5)]),
    ("ReplicationPad2d", (2,), {}, [x(2, 3, 4, 5)]),
    ("ReplicationPad3d", (1,), {}, [x(1, 2, 3, 4, 5)]),
    ("CircularPad1d", (2,), {}, [x(2, 3, 4)]),
    ("CircularPad2d", (2,), {}, [x(2, 3, 4, 5)]),
    ("Upsample", (), {"scale_factor": 2}, [x(2, 3, 4, 5)]),
    ("Upsample", (), {"size": (7, 6), "mode": "bilinear"}, [x(2, 3, 4, 5)]),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, [x(2, 3, 4, 5)]),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, [x(2, 3, 4, 5)]),
    ("PixelShuffle", (2,), {}, [x(2, 8, 3, 4)]),
    ("PixelUnshuffle", (2,), {}, [x(2, 3, 4, 6)]),
    ("ChannelShuffle", (2,), {}, [x(2, 6, 4, 3)]),
    ("Unfold", (2,), {"padding": 1, "stride": 2}, [x(2, 3, 5, 4)]),
    ("Fold", ((4, 5), 2), {}, [x(2, 12, 12)]),
    ("CosineSimilarity", (), {}, [x(3, 4), x(3, 4)]),
    ("PairwiseDistance", (), {"keepdim": True}, [x(3, 4), x(3, 4)]),
]

RECURRENT = [
    ("RNN", (3, 4), {}, [x(5, 2, 3)]),
    ("RNN", (3, 4, 2, "relu"), {"batch_first": True, "bidirectional": True}, [x(2, 5, 3)]),
    ("RNN", (3, 4), {"bias": False}, [x(5, 3), x(1, 4)]),
    ("LSTM", (3, 4), {}, [x(5, 2, 3)]),
    ("LSTM", (3, 4, 2), {"bidirectional": True, "batch_first": True},
     [x(2, 5, 3), (x(4, 2, 4), x(4, 2, 4))]),
    ("LSTM", (3, 4), {"bias": False}, [x(5, 3)]),
    ("LSTM", (3, 4, 2), {"proj_size": 2, "bidirectional": True},
     [x(5, 2, 3), (x(4, 2, 2), x(4, 2, 4))]),
    ("LSTM", (3, 4), {"proj_size": 3, "bias": False}, [x(5, 3)]),
    ("GRU", (3, 4, 2), {}, [x(5, 2, 3), x(2, 2, 4)]),
    ("GRU", (3, 4), {"bidirectional": True, "batch_first": True}, [x(2, 5, 3)]),
    ("RNNCell", (3, 4), {}, [x(2, 3)]),
    ("RNNCell", (3, 4), {"nonlinearity": "relu"}, [x(2, 3), x(2, 4)]),
    ("LSTMCell", (3, 4), {}, [x(2, 3), (x(2, 4), x(2, 4))]),
    ("LSTMCell", (3, 4), {"bias": False}, [x(3)]),
    ("GRUCell", (3, 4), {}, [x(2, 3), x(2, 4)]),
]  # fmt: skip

ATTENTION = [
    ("MultiheadAttention", (8, 2), {}, [x(4, 3, 8), x(5, 3, 8), x(5, 3, 8)]),
    ("MultiheadAttention", (8, 2), {"batch_first": True, "bias": False}, [x(3, 4, 8)] * 3),
    ("MultiheadAttention", (8, 2), {"kdim": 6, "vdim": 5}, [x(4, 3, 8), x(5, 3, 6), x(5, 3, 5)]),
    ("MultiheadAttention", (8, 4), {"add_bias_kv": True, "add_zero_attn": True}, [x(4, 3, 8)] * 3),
    ("MultiheadAttention", (8, 2), {}, [x(4, 8), x(5, 8), x(5, 8)]),
    ("TransformerEncoderLayer", (8, 2, 16, 0.0), {}, [x(4, 3, 8)]),
    ("TransformerEncoderLayer", (8, 2, 16, 0.0, "gelu"),
     {"batch_first": True, "norm_first": True, "bias": False}, [x(3, 4, 8)]),
    ("TransformerDecoderLayer", (8, 2, 16, 0.0), {}, [x(4, 3, 8), x(5, 3, 8)]),
    ("TransformerDecoderLayer", (8, 2, 16, 0.0),
     {"batch_first": True, "norm_first": True}, [x(3, 4, 8), x(3, 5, 8)]),
    ("Transformer", (8, 2, 2, 2, 16, 0.0), {}, [x(4, 3, 8), x(5, 3, 8)]),
]  # fmt: skip

LOSSES = [
    ("L1Loss", (), {}, [x(3, 4), x(3, 4)]),
    ("MSELoss", (), {}, [x(3, 4), x(3, 4)]),
    ("SmoothL1Loss", (), {"beta": 0.5}, [x(3, 4), x(3, 4)]),
    ("HuberLoss", (), {"delta": 0.5}, [x(3, 4), x(3, 4)]),
    ("NLLLoss", (), {}, [x(3, 4), ints(4, 3)]),
    ("NLLLoss", (), {"ignore_index": 1}, [x(5, 4, 2), ints(4, 5, 2)]),
    ("CrossEntropyLoss", (), {}, [x(3, 4), ints(4, 3)]),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.2, "ignore_index": 2}, [x(6, 4), ints(4, 6)]),
    ("CrossEntropyLoss", (), {}, [x(3, 4), p(3, 4)]),
    ("BCELoss", (), {}, [p(3, 4), p(3, 4)]),
    ("BCEWithLogitsLoss", (), {}, [x(3, 4), p(3, 4)]),
    ("KLDivLoss", (), {"log_target": True}, [x(3, 4), x(3, 4)]),
    ("PoissonNLLLoss", (), {"full": True}, [x(3, 4), p(3, 4) * 5]),
    ("GaussianNLLLoss", (), {"full": True}, [x(3, 4), x(3, 4), p(3, 4)]),
    ("HingeEmbeddingLoss", (), {}, [x(3, 4), signs(3, 4)]),
    ("SoftMarginLoss", (), {}, [x(3, 4), signs(3, 4)]),
    ("MultiLabelSoftMarginLoss", (), {}, [x(3, 4), ints(2, 3, 4)]),
    ("CosineEmbeddingLoss", (), {"margin": 0.1}, [x(3, 4), x(3, 4), signs(3)]),
    ("MarginRankingLoss", (), {"margin": 0.1}, [x(3), x(3), signs(3)]),
    ("TripletMarginLoss", (), {"swap": True}, [x(3, 4), x(3, 4), x(3, 4)]),
]
ALL = (
    LINEAR + ACTIVATIONS + CONVOLUTION + POOLING + NORMALIZATION + OTHERS + RECURRENT + ATTENTION
    + LOSSES
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "args", "kwargs", "inputs"), ALL, ids=[f"{i}-{c[0]}" for i, c in enumerate(ALL)]
)
def test_training(name: str, args: tuple, kwargs: dict, inputs: list, dtype: str) -> None:
    calls = 2 if "Norm" in name else 1
    tolerance = ROUGH.get(name, 0.0)

    def make(nn: ModuleType) -> object:
        return getattr(nn, name)(*args, **kwargs)

    compare(make, inputs, dtype, calls=calls, tolerance=tolerance)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "inputs"),
    NORMALIZATION + RECURRENT,
    ids=[f"{i}-{c[0]}" for i, c in enumerate(NORMALIZATION + RECURRENT)],
)
def test_evaluation(name: str, args: tuple, kwargs: dict, inputs: list) -> None:
    compare(lambda nn: getattr(nn, name)(*args, **kwargs), inputs, training=False)


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize(
    ("name", "args", "kwargs", "inputs"), LOSSES, ids=[f"{i}-{c[0]}" for i, c in enumerate(LOSSES)]
)
def test_reductions(name: str, args: tuple, kwargs: dict, inputs: list, reduction: str) -> None:
    compare(lambda nn: getattr(nn, name)(*args, **kwargs, reduction=reduction), inputs)
