"""The networks that ``pyframe train`` knows (L6)."""

from __future__ import annotations

from collections.abc import Callable

from .. import nn
from ..errors import ArgumentError, ShapeError, fail
from ..tensor import Tensor


def mlp(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A perceptron with two hidden layers of 256."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 256),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )


def lenet(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """LeNet: two 5×5 convolutions with pooling, then two fully connected layers.

    Padding keeps the size, so that 8×8 images work too. Source: LeCun et al., "Gradient-based
    learning applied to document recognition", Proc. IEEE 86 (1998); ReLU and max pooling as usual
    today, 20 and 50 channels as in Caffe's version.
    """
    channels, height, width = shape
    if height < 4 or width < 4:
        fail(ShapeError, "lenet", "images must be at least 4×4", shape=shape)
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(50 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut."""

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

    def forward(self, x: Tensor) -> Tensor:
        """The block's output: its two convolutions plus the shortcut."""
        y = nn.fusing.chain((self.conv1, self.bn1, self.relu), x)
        return nn.fusing.chain((self.conv2, self.bn2), y, self.shortcut(x), self.relu)


def resnet18(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-18 in its form for small images. Source: He et al., arXiv:1512.03385."""
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
    ]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


MODELS: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "mlp": mlp,
    "lenet": lenet,
    "resnet18": resnet18,
}


def find_model(name: str) -> Callable[[tuple[int, int, int], int], nn.Module]:
    """What builds the network called ``name``.

    Raises:
        ArgumentError: if there is none of that name.
    """
    if name not in MODELS:
        fail(ArgumentError, "train", f"unknown model {name!r}", f"Choose from {', '.join(MODELS)}.")
    return MODELS[name]


def build_model(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network called ``name`` for images of ``shape`` (channels, height, width).

    Raises:
        ArgumentError: if there is none of that name.
    """
    return find_model(name)(shape, classes)
