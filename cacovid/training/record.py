"""What a training run leaves to look at: metrics.jsonl, TensorBoard events, and its curves as a picture."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from cacovid.training.curves import draw_curves, read_metrics


class Record:
    """The metrics of a run, one row a step. Rows of steps that a resumed run does again are taken out first."""

    def __init__(self, folder: Path, step: int) -> None:
        """`step`: the last one that was saved."""
        self.folder, self._file = folder, folder / "metrics.jsonl"
        if self._file.exists():
            rows = [json.dumps(row) + "\n" for row in read_metrics(self._file) if row["step"] <= step]
            self._file.write_text("".join(rows), encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one step's metrics everywhere."""
        row = {"step": step, **{name: round(value, 6) for name, value in metrics.items()}}
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush, and draw the curves beside the metrics."""
        self._board.close()
        if self._file.exists():
            draw_curves(self._file, self.folder / "curves.png")
