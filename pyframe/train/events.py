"""TensorBoard events of a run, if tensorboard is installed (L6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_events(rows: list[dict[str, Any]], folder: Path) -> bool:
    """Writes every metric of every epoch as a scalar. False if tensorboard is not installed."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return False
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(folder))
    for row in rows:
        values = [
            Summary.Value(tag=tag, simple_value=float(value))
            for tag, value in row.items()
            if tag != "epoch"
        ]
        writer.add_event(Event(step=row["epoch"], summary=Summary(value=values)))
    writer.close()
    return True
