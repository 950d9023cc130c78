"""The training log: one row an epoch, as CSV for everyone and as TensorBoard events for those who watch."""

import csv
import io
import warnings
from pathlib import Path
from types import TracebackType

from kdedge.core.rundir import write_text

Row = dict[str, float]


def read_rows(path: Path) -> list[Row]:
    """Rows of a training's CSV; cells left empty are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


class TrainingLog:
    """Rows of one training, those of earlier starts first; rewritten whole, so that no epoch is ever listed twice."""

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tensorboard's own imports warn on new numpy and protobuf versions
            from torch.utils.tensorboard import SummaryWriter

        self.folder, self.rows = folder, rows
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows) + 1)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()

    def add(self, row: Row) -> None:
        self.rows.append(row)
        columns = list(dict.fromkeys(key for known in self.rows for key in known))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / "log.csv", text.getvalue())
        for key, value in row.items():
            if key != "epoch":
                self._events.add_scalar(key, value, int(row["epoch"]))
        self._events.flush()
