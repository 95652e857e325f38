"""Which row each row is compared with."""

import pandas as pd

from analysis.results import ResultsError

UNCOMPRESSED = "full"


def reference_rows(rows: pd.DataFrame, reference: str | None) -> list[int | None]:
    """For each of the rows of one backbone and task the position of its reference; None where it has none.

    `reference` is a label, else a method, by default the uncompressed method. A reference that keeps all tokens
    serves every row, one that compresses the rows of its own budget and retention. Raises ResultsError where several
    labels are meant.
    """
    name = UNCOMPRESSED if reference is None else reference
    meant = rows[rows["label"] == name]
    if meant.empty:
        meant = rows[rows["method"] == name]
    if len(found := sorted(meant["label"].unique())) > 1:
        raise ResultsError(
            f"{rows['task'].iloc[0]} on {rows['backbone'].iloc[0]}: {name!r} is the method of {', '.join(found)}, "
            f"expected one reference; name its label"
        )
    return [_serves(meant, row) for _, row in rows.iterrows()]


def _serves(meant: pd.DataFrame, row: pd.Series) -> int | None:
    if row.name in meant.index:
        return int(row.name)
    budget = meant["budget"] == row["budget"]
    if meant["retention_asked"].eq(1).all():
        near = budget * 2 + meant["kind"].eq(row["kind"])  # the uncompressed model may be there in every budget
        return None if meant.empty else int(near.idxmax())
    same = meant[budget & meant["retention_asked"].eq(row["retention_asked"])]
    return None if same.empty else int(same["kind"].eq(row["kind"]).idxmax())
