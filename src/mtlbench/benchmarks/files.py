"""The files of a measured table, named after the machine."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any


def save(rows: Sequence[Any], text: str, device: str, name: str, folder: Path) -> None:
    """Writes <device>_<name>.csv, a line for each dataclass of rows, and .md, the text. Same numbers, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}_{name}"
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = [field.name for field in fields(rows[0])]
    writer.writerow(names)
    for row in rows:
        values = (getattr(row, name) for name in names)
        writer.writerow("" if v is None else f"{v:.5f}" if isinstance(v, float) else v for v in values)
    place.with_name(f"{place.name}.csv").write_text(table.getvalue())
    place.with_name(f"{place.name}.md").write_text(text)


def cell(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
