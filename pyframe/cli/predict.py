"""``pyframe predict`` (L6): what a trained network sees in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="run folder of pyframe train")],
    image: Annotated[Path, typer.Argument(help="a picture; resized and turned to grey as needed")],
    top: Annotated[int, typer.Option(help="how many classes to show")] = 5,
) -> None:
    """Classify a picture with a trained network."""
    from rich.console import Console
    from rich.table import Table

    from ..autograd import no_grad
    from ..errors import FileError, fail
    from ..io import load
    from ..nn import functional
    from ..train import Settings, build_model, load_dataset

    settings = Settings.load(run)
    source = load_dataset(settings.data, settings.data_folder)
    weights = run / "model.safetensors"
    if not weights.exists():
        fail(FileError, "predict", f"{run} has no model.safetensors", "Train for an epoch first.")
    model = build_model(settings.model, source.shape, len(source.classes))
    model.load_state_dict(load(weights))
    model.eval()
    pixels = read_image(image, source.shape)
    with no_grad():
        probabilities = functional.softmax(model(pixels), dim=1).numpy()[0]
    table = Table(title=f"{image.name}: {source.classes[int(probabilities.argmax())]}")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for k in probabilities.argsort()[::-1][: max(top, 1)]:
        table.add_row(source.classes[int(k)], f"{probabilities[k]:.2%}")
    Console().print(table)


def read_image(path: Path, shape: tuple[int, int, int]) -> Any:
    """The picture as float32[1, *shape] in [0, 1], light on dark as in the datasets.

    Raises:
        FileError: if it is no picture.
        MissingDependencyError: if Pillow is not installed.
    """
    import numpy as np

    from ..errors import FileError, fail, missing
    from ..tensor import from_numpy

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise missing("Pillow", "reading pictures", "examples") from error
    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if channels == 1 else "RGB")
            picture = picture.resize((width, height), Image.Resampling.BOX)
    except FileNotFoundError:
        fail(FileError, "predict", f"there is no file {path}")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        fail(FileError, "predict", f"{path} is no picture that Pillow can read ({error})")
    pixels = np.asarray(picture, np.float32) / 255.0
    if channels == 1:
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        if border.mean() > 0.5:  # dark on light paper
            pixels = 1.0 - pixels
        low, high = pixels.min(), pixels.max()
        if high > low:
            pixels = (pixels - low) / (high - low)
    pixels = (
        pixels.reshape(1, 1, height, width) if channels == 1 else pixels.transpose(2, 0, 1)[None]
    )
    return from_numpy(np.ascontiguousarray(pixels))
