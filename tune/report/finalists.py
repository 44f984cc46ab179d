"""The finalists' section of the report: what their retraining with several seeds came to, where a study has it."""

from collections.abc import Mapping
from typing import Any

from tune.console import format_value


def finalists_view(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The document's own words, and its lists of objects as tables; None where a study has no finalists.

    Args:
        document: a JSON object; ``words`` is a sentence, every list of objects becomes a table.
    """
    tables = [
        table
        for key, value in document.items()
        if isinstance(value, list) and (table := _table(key, value)) is not None
    ]
    if not tables:
        return None
    return {"words": str(document.get("words", "")), "tables": tables}


def _table(title: str, rows: list[Any]) -> dict[str, Any] | None:
    objects = [row for row in rows if isinstance(row, Mapping)]
    heads = list(dict.fromkeys(key for row in objects for key in row))
    if not objects or len(objects) < len(rows):
        return None
    cells = [[_cell(row.get(head)) for head in heads] for row in objects]
    return {"title": title, "heads": heads, "rows": cells}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return format_value(value)
