"""One file of a table, as it is written."""

from pathlib import Path

import polars as pl

from engine.data.faults import Fault
from engine.errors import DataError


class Unreadable(DataError):
    """A file that is no table; `faults` has everything that is wrong with it, at least one thing."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(str(faults[0]))
        self.faults = faults


def read_frame(path: Path) -> pl.DataFrame:
    """The raw columns of one file; CSV as text throughout, so that conversion can name the row that fails.

    Empty lines at the end of a CSV file are no rows. Raises Unreadable.
    """
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        frame = pl.read_csv(path, infer_schema=False, glob=False)
    except pl.exceptions.NoDataError:
        raise Unreadable(Fault(str(path), None, "the file is empty")) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unreadable(Fault(str(path), None, f"cannot be read: {str(error).splitlines()[0]}")) from None
    filled = frame.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
    return frame.head(filled[-1] + 1 if len(filled) else 0)
