"""Five networks written once and built with pyframe or torch: only the framework's name differs."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np


def mlp(fw: ModuleType) -> Any:
    """64-32-32-10 with tanh and ReLU."""
    nn = fw.nn
    return nn.Sequential(
        nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def lenet(fw: ModuleType) -> Any:
    """LeNet-5's form for 1×16×16 images."""
    nn = fw.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def lstm_lm(fw: ModuleType, vocabulary: int = 20, width: int = 24) -> Any:
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
    fw: ModuleType, vocabulary: int = 20, width: int = 32, heads: int = 4, length: int = 12
) -> Any:
    """A two-layer decoder with pre-norm blocks and learned positions."""
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
            x = x + self.proj(y)
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.positions = nn.Parameter(fw.zeros(length, width))
            self.blocks = nn.ModuleList([Block(), Block()])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, x: Any) -> Any:
            h = self.tokens(x) + self.positions[: x.shape[1]]
            for block in self.blocks:
                h = block(h)
            return self.head(self.norm(h)).reshape(-1, vocabulary)

    return Model()


def resnet18(fw: ModuleType, classes: int = 10) -> Any:
    """ResNet-18 for CIFAR's 3×32×32 images (He et al., arXiv:1512.03385)."""
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

    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


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
