"""CSV and TSV: cells as Python's csv module reads them in strict mode, each row with its line in the file.

Comma, semicolon and `|`: RFC 4180, quotes around a cell are no part of it and "" inside is one quote. Tab: quotes are
characters, because most TSV is written without quoting; only where all quotes in the file are those that a CSV writer
would have written (csv.writer, pandas, Excel), it is read as that writer meant it.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mangakd.core.errors import UserError
from mangakd.data.notices import Notices, log, short

SEPARATORS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
csv.field_size_limit(2**31 - 1)  # a long text is no error; the library's limit is 128 kB
_BLANK_QUOTE = "a blank before a quote, so that the quote opens no cell"
_NO_BLANK = "Remove the blank between the separator and the quote"
_ESCAPES = re.compile(r'\\["nrt]')
_UNESCAPE = r"""sed 's/\\"/""/g' old.csv > new.csv"""


@dataclass(frozen=True)
class Record:
    """line: where it starts in the file, from 1. raw: as it is written there, with its line ends."""

    line: int
    cells: list[str]
    raw: str


def read_delimited(text: str, usual: str, origin: str) -> tuple[list[str], list[Record], str]:
    """(the header, the rows, the separator). usual: the separator that the file's ending stands for.

    Raises UserError, naming the line, for a row with more or fewer cells than the header and for broken quoting.
    """
    lines = list(io.StringIO(text, newline=""))  # split at \n, \r\n and \r alone, and not at U+2028 or a form feed
    separator, skipped = _separator(lines, usual)
    if separator != usual:
        log.info("%s is separated by %s.", origin, SEPARATORS.get(separator, repr(separator)))
    notices = Notices(origin, "line")
    if separator == "\t":
        records = _tabbed_records(lines, skipped, origin, notices)
    else:
        records = _quoted_records(lines, skipped, separator, origin, notices)
    records = [record for record in records if record.raw.strip("\r\n ")]
    if not records:
        raise UserError(f"{origin} has no rows, only blank lines.")
    header, rows = records[0].cells, records[1:]
    if header[0].startswith("#") and rows and any(len(record.cells) != len(header) for record in rows):
        raise UserError(
            f"{origin}: line {records[0].line} ({short(records[0].raw.rstrip())}) looks like a comment; the header must be the "
            "first line. Remove the comment."
        )
    for record in rows:
        if len(record.cells) != len(header):
            raise UserError(_uneven(record, header, separator, origin))
    _note_breaks(rows, origin, notices, len(lines))
    for record in rows:
        if _ESCAPES.search(record.raw):
            notices.add(
                "rows with a backslash escape, which is read as it is written", record.line, record.raw.rstrip("\r\n")
            )
    notices.log()
    return header, rows, separator


def _separator(lines: Sequence[str], usual: str) -> tuple[str, int]:
    """(the separator, how many lines precede the header): Excel's line `sep=;`, the usual one, or the header's only one."""
    first = lines[0] if lines else ""
    if match := re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE):
        return match[1], 1
    header = re.sub(
        r'"(?:[^"]|"")*"', "", next((line for line in lines if line.strip()), "")
    )  # quoted names may hold some
    others = [separator for separator in SEPARATORS if separator in header]
    return usual if usual in others or not others else max(others, key=header.count), 0


def _records(lines: Sequence[str], skipped: int, separator: str, spaced: bool = False) -> Iterator[Record]:
    """spaced: blanks after a separator are no part of the cell."""
    reader = csv.reader(lines[skipped:], delimiter=separator, strict=True, skipinitialspace=spaced)
    start = skipped
    try:
        for cells in reader:
            end = skipped + reader.line_num
            yield Record(start + 1, cells, "".join(lines[start:end]))
            start = end
    except csv.Error as error:
        raise _BrokenQuotes(start, skipped + reader.line_num, str(error)) from error


class _BrokenQuotes(Exception):
    """args: lines before the record, lines up to the fault, the csv module's reason."""


def _quoted_records(lines: Sequence[str], skipped: int, separator: str, origin: str, notices: Notices) -> list[Record]:
    if any(_blank_quote(line, separator) for line in lines) and (spaced := _spaced_records(lines, skipped, separator)):
        return spaced
    try:
        records = list(_records(lines, skipped, separator))
    except _BrokenQuotes as broken:
        start, end, reason = broken.args
        raise UserError(_broken(lines, start, end, reason, separator, origin)) from broken
    for record in records:
        if cell := next(
            (cell for cell in record.cells if re.match(' +"', cell) and separator + cell in record.raw), ""
        ):
            notices.add(
                "cells with a blank before the quote, which is therefore read as a part of it", record.line, cell
            )
    return records


def _blank_quote(raw: str, separator: str) -> bool:
    return re.search(rf'{re.escape(separator)} +"', raw) is not None


def _spaced_records(lines: Sequence[str], skipped: int, separator: str) -> list[Record] | None:
    """Records without the blanks after separators, where the file is sound so and loses no blank that may be meant.

    That is so if blanks are only before quotes, or one after each separator.
    """
    try:
        records = list(_records(lines, skipped, separator, spaced=True))
    except _BrokenQuotes:
        return None
    records = [record for record in records if record.raw.strip()]
    cell = re.compile(rf'(?:^|{re.escape(separator)})( *)("(?:[^"]|"")*"|[^{re.escape(separator)}\r\n]*)')
    plain = [cell.findall(record.raw) for record in records]
    unquoted = [[None if body.startswith('"') else blanks for blanks, body in row] for row in plain]
    quotes_only = not any(blanks for row in unquoted for blanks in row)
    everywhere = all(row[0] in (None, "") and set(row[1:]) <= {None, " "} for row in unquoted[1:])
    even = len({len(record.cells) for record in records}) == 1
    return records if even and (quotes_only or everywhere) else None


def _tabbed_records(lines: Sequence[str], skipped: int, origin: str, notices: Notices) -> list[Record]:
    plain = [
        Record(number, line.rstrip("\r\n").split("\t"), line)
        for number, line in enumerate(lines[skipped:], skipped + 1)
    ]
    starts = [
        (record.line, cell) for record in plain if (cell := next((c for c in record.cells if c.startswith('"')), None))
    ]
    if starts and (quoted := _as_meant(lines, skipped, plain)):
        log.info("%s is read as a writer with quoting wrote it: quotes around a cell are no part of it.", origin)
        return quoted
    for line, cell in starts:
        notices.add("rows with a cell that begins with a quote, which is read as a part of it", line, cell)
    return plain


def _as_meant(lines: Sequence[str], skipped: int, plain: Sequence[Record]) -> list[Record] | None:
    """Records with quoting, where the whole file is what a writer with quoting would have written."""
    try:
        quoted = list(_records(lines, skipped, "\t"))
    except _BrokenQuotes:
        return None
    widths = {len(record.cells) for record in plain if record.raw.strip("\r\n")}
    if len(widths) == 1 and widths != {1} and any(_has_break(cell) for record in quoted for cell in record.cells):
        return None  # each line is a row as it stands, so no text goes on in the next line
    return quoted if any(all(_as_written_by(record, quotes) for record in quoted) for quotes in _WRITERS) else None


def _has_break(cell: str) -> bool:
    return "\n" in cell or "\r" in cell


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell) is not None


# Which cells are quoted by: csv.writer and pandas; Excel; QUOTE_ALL; QUOTE_NONNUMERIC.
_WRITERS: tuple[Callable[[str], bool], ...] = (
    lambda cell: re.search('["\t\r\n]', cell) is not None,
    lambda cell: re.search('[",\t\r\n]', cell) is not None,
    lambda cell: True,
    lambda cell: not _is_number(cell),
)


def _as_written_by(record: Record, quotes: Callable[[str], bool]) -> bool:
    """Whether the record is, character by character, what a writer that quotes such cells would have written."""
    cells = ('"' + cell.replace('"', '""') + '"' if quotes(cell) else cell for cell in record.cells)
    return "\t".join(cells) == record.raw.rstrip("\r\n") or not record.cells


def _broken(lines: Sequence[str], start: int, end: int, reason: str, separator: str, origin: str) -> str:
    raw = "".join(lines[start:end])
    if '\\"' in raw:
        return (
            f"{origin}: line {start + 1} escapes quotes by a backslash ({short(raw.splitlines()[0])}); in CSV a quote "
            f'inside a quoted cell is written twice (""). Rewrite the file: {_UNESCAPE}'
        )
    if _blank_quote(raw, separator):
        return f"{origin}: line {start + 1} has {_BLANK_QUOTE} ({short(lines[start].rstrip())}). {_NO_BLANK}."
    if "end of data" in reason:
        what = f"line {start + 1} opens a cell with a quote that is never closed"
    else:
        what = f"line {start + 1} opens a cell with a quote, and in line {end} text follows the closing quote"
    return (
        f"{origin}: {what} ({short(lines[start].rstrip())}). Close the quote; where it is a part of the text, write the cell "
        'as "…" with each quote inside it twice (""), or save the file as JSONL.'
    )


def _uneven(record: Record, header: Sequence[str], separator: str, origin: str) -> str:
    name = SEPARATORS.get(separator, repr(separator))
    count = len(record.cells)
    advice = (
        f"A cell that holds {name} must stand in quotes"
        if count > len(header)
        else "Perhaps a text goes on in the next line: it must stand in quotes"
    )
    if "\\" + separator in record.raw:
        advice += "; a backslash before the separator does not protect it"
    if _blank_quote(record.raw, separator):
        advice = f"There is {_BLANK_QUOTE}. {_NO_BLANK}"
    if separator == "\t":
        advice = "Replace tabs and line breaks inside texts by blanks"
    return (
        f"{origin}: line {record.line} has {count} cell{'s' if count != 1 else ''} separated by {name}, the header has "
        f"{len(header)} ({', '.join(header)}): {short(record.raw.rstrip())}. {advice}, or save the file as JSONL."
    )


def _note_breaks(rows: Sequence[Record], origin: str, notices: Notices, lines: int) -> None:
    broken = [(record.line, cell) for record in rows for cell in record.cells if _has_break(cell)]
    if not broken:
        log.info("%s: %d rows from %d lines.", origin, len(rows), lines)
    for line, cell in broken:
        notices.add(f"cells with line breaks ({len(rows)} rows from {lines} lines)", line, cell)


def check_breaks(rows: Sequence[Record], label: int, separator: str, origin: str) -> None:
    """Raises UserError where a line inside a cell is a whole row with a known label: the cell's quote was closed too late.

    label: the place of the label column.
    """
    labels = {name for record in rows if (name := record.cells[label].strip())}
    for record in rows:
        for part in (line for cell in record.cells if _has_break(cell) for line in cell.splitlines()):
            cells = part.split(separator)
            if len(cells) == len(record.cells) > 1 and all(cells) and cells[label].strip() in labels:
                raise UserError(
                    f"{origin}: the quote that opens a cell in line {record.line} is closed too late: the cell holds "
                    f"{short(part)}, which looks like a row. Close the quote, or save the file as JSONL."
                )
