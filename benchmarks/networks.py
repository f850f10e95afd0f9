"""Networks written once and built with pyframe or torch: only the framework's name differs.

Except with ``fused=True``, for pyframe: it has calls for what follows a product, a residual above
all, which a program that calls one op after the other cannot tell it of in time.
"""

from __future__ import annotations

import math
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np


def mlp(fw: ModuleType, sizes: tuple[int, ...] = (784, 256, 256, 10)) -> Any:
    """Linear layers with ReLU between them."""
    nn = fw.nn
    layers: list[Any] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet(fw: ModuleType, size: int = 28, hidden: tuple[int, ...] = (120, 84)) -> Any:
    """LeNet-5's form for 1×size×size images (LeCun et al., 1998), with one average pooling."""
    nn = fw.nn
    features = 16 * ((size // 2 - 4) // 2) ** 2
    layers = [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
    ]
    for inputs, outputs in pairwise((features, *hidden)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 10))


def lstm_lm(fw: ModuleType, vocabulary: int = 96, width: int = 256) -> Any:
    """A character model: embedding, 2-layer LSTM, projection."""
    nn = fw.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
            self.head = nn.Linear(width, vocabulary)

        def forward(self, x: Any) -> Any:
            y, _ = self.lstm(self.embedding(x))
            return self.head(y).reshape(-1, vocabulary)

    return Model()


def gpt(
    fw: ModuleType,
    vocabulary: int = 256,
    width: int = 256,
    heads: int = 8,
    length: int = 128,
    layers: int = 4,
    fused: bool = False,
) -> Any:
    """A decoder with pre-norm blocks and learned positions (Radford et al., 2019)."""
    nn, functional = fw.nn, fw.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)
            self.norm2 = nn.LayerNorm(width)
            self.up = nn.Linear(width, 4 * width)
            self.down = nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch, time, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
            q, k, v = (
                t.view(batch, time, heads, width // heads).transpose(1, 2) for t in (q, k, v)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = y.transpose(1, 2).contiguous().view(batch, time, width)
            if fused:
                x = functional.linear_residual(y, self.proj.weight, self.proj.bias, x)
                weights = (self.up.weight, self.down.weight, self.up.bias, self.down.bias)
                return functional.feed_forward(self.norm2(x), *weights, x, activation="gelu")
            x = x + self.proj(y)
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.positions = nn.Parameter(fw.zeros(length, width))
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, x: Any) -> Any:
            h = self.tokens(x) + self.positions[: x.shape[1]]
            for block in self.blocks:
                h = block(h)
            return self.head(self.norm(h)).reshape(-1, vocabulary)

    return Model()


def resnet18(fw: ModuleType, classes: int = 10, width: int = 64) -> Any:
    """ResNet-18 for CIFAR's 3×32×32 images (He et al., arXiv:1512.03385), 64 channels at first."""
    nn = fw.nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            y += self.shortcut(x)
            return self.relu(y)

    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
    layers += [nn.ReLU(inplace=True)]
    inputs = width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


# Width, blocks and stride of each stage of ResNet-50.
_RESNET50 = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def resnet50(
    fw: ModuleType, classes: int = 1000, stages: Any = _RESNET50, fused: bool = False
) -> Any:
    """ResNet-50 (He et al., arXiv:1512.03385), the stride in a block's 3×3 convolution."""
    nn = fw.nn

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[Any]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs)]

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            layers = [*conv(inputs, width, 1), nn.ReLU(inplace=True)]
            layers += [*conv(width, width, 3, stride), nn.ReLU(inplace=True)]
            self.body = nn.Sequential(*layers, *conv(width, 4 * width, 1))
            same = stride == 1 and inputs == 4 * width
            self.shortcut = nn.Sequential(*([] if same else conv(inputs, 4 * width, 1, stride)))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            if fused:
                return nn.fusing.chain(self.body, x, self.shortcut(x), self.relu)
            y = self.body(x)
            y += self.shortcut(x)
            return self.relu(y)

    layers = [*conv(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in stages:
        for number in range(blocks):
            layers.append(Bottleneck(inputs, width, 1 if number else stride))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def unet(fw: ModuleType, classes: int = 2, width: int = 16, depth: int = 3) -> Any:
    """A small U-Net with batch norm (Ronneberger et al., arXiv:1505.04597)."""
    nn = fw.nn

    def double(inputs: int, outputs: int) -> Any:
        layers = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        return nn.Sequential(*layers)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [width << level for level in range(depth + 1)]
            pairs = list(pairwise(widths))
            self.first = double(3, width)
            self.down = nn.ModuleList([double(a, b) for a, b in pairs])
            self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs)])
            self.merge = nn.ModuleList([double(b, a) for a, b in reversed(pairs)])
            self.pool = nn.MaxPool2d(2)
            self.head = nn.Conv2d(width, classes, 1)

        def forward(self, x: Any) -> Any:
            skips = [self.first(x)]
            for block in self.down:
                skips.append(block(self.pool(skips[-1])))
            y = skips.pop()
            for up, merge in zip(self.up, self.merge, strict=True):
                y = merge(fw.cat([skips.pop(), up(y)], dim=1))
            return self.head(y)

    return Model()


# Expansion, output channels, repeats, stride of each stage: MobileNetV2's table.
_MOBILENET = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(fw: ModuleType, classes: int = 10) -> Any:
    """MobileNetV2 (Sandler et al., arXiv:1801.04381), the first convolution without stride."""
    nn = fw.nn

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        padding = kernel // 2
        return [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]

    class Inverted(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
            super().__init__()
            hidden = inputs * expansion
            layers = [] if expansion == 1 else [*conv(inputs, hidden, 1), nn.ReLU6(inplace=True)]
            layers += [*conv(hidden, hidden, 3, stride, hidden), nn.ReLU6(inplace=True)]
            layers += conv(hidden, outputs, 1)
            self.body = nn.Sequential(*layers)
            self.residual = stride == 1 and inputs == outputs

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.residual else self.body(x)

    layers = [*conv(3, 32, 3), nn.ReLU6(inplace=True)]
    inputs = 32
    for expansion, outputs, repeats, stride in _MOBILENET:
        for i in range(repeats):
            layers.append(Inverted(inputs, outputs, stride if i == 0 else 1, expansion))
            inputs = outputs
    layers += [*conv(inputs, 1280, 1), nn.ReLU6(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


def initial_weights(torch_net: Any, seed: int) -> dict[str, np.ndarray]:
    """Weights of usual scale from NumPy, so that both frameworks can start from them."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, p in torch_net.state_dict().items():
        shape = tuple(p.shape)
        if not p.is_floating_point():
            weights[name] = p.numpy().copy()
        elif "running_var" in name or (p.ndim == 1 and name.endswith("weight")):
            weights[name] = np.ones(shape)
        elif "running_mean" in name:
            weights[name] = np.zeros(shape)
        else:
            fan = math.prod(shape[1:]) if len(shape) > 1 else max(shape[0], 1)
            weights[name] = random.uniform(-1, 1, shape) / math.sqrt(fan)
    return weights


def build(fw: Any, net: Any, weights: dict[str, np.ndarray], dtype: str = "float32") -> Any:
    """``net`` with these weights, in ``dtype``."""
    state = {}
    for name, value in weights.items():
        value = value.astype(dtype) if value.dtype.kind == "f" else value
        state[name] = fw.from_numpy(np.ascontiguousarray(value))
    net = net.to(getattr(fw, dtype))
    net.load_state_dict(state)
    return net
