"""`Layout`: which columns of a file are its prompts and its answers, as the task that reads the file has them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mangakd.core.errors import UserError, near
from mangakd.data.checks import MISSING
from mangakd.data.rows import NOTHING, Columns, Rows
from mangakd.data.tables import Table

Check = Callable[[Rows], None]


@dataclass(frozen=True)
class Layout:
    """name: of the task, or texts. columns: those that may be there. needs: sets of columns, of which a file has one whole set.

    prompts, answers: the columns of what was asked and of what was written. check: raises UserError for a row that the task
    refuses. category: the card's task category of Hugging Face.
    """

    name: str
    columns: Columns
    needs: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    check: Check
    category: str = "text-generation"

    def fits(self, has: Callable[[str], bool]) -> bool:
        return any(all(has(name) for name in names) for names in self.needs)


def _check_response(rows: Rows) -> None:
    from mangakd.tasks.response.encode import chats_of

    for _ in chats_of(rows, "", "{context}\n\n{prompt}"):
        pass


def _check_rewrite(rows: Rows) -> None:
    from mangakd.tasks.rewrite.encode import check, targets

    whole = Rows({**_nothing(rows, _rewrite().columns), **rows.columns}, rows.numbers, rows.origin, rows.unit)
    check(whole)
    if not all(targets(whole)):
        raise UserError(f"{rows.where(0)} has no rewrite and no target.")


def _check_rerank(rows: Rows) -> None:
    from mangakd.tasks.rerank.task import check_row

    _check_filled(rows)
    if "grades" in rows:
        check_row(rows, 0)


def _check_filled(rows: Rows) -> None:
    for name, values in rows.columns.items():
        if values[0] == () or (isinstance(values[0], str) and not values[0].strip()):
            raise UserError(f"{rows.where(0)} has no {name}.")


def _check_class(rows: Rows) -> None:
    if not rows["text"][0].strip():
        raise UserError(f"{rows.where(0)} has no text.")
    if "label" in rows and MISSING["label"](rows["label"][0]):
        raise UserError(f"{rows.where(0)} has no label.")


def _check_pair(rows: Rows) -> None:
    for name in ("anchor", "positive"):
        if not rows[name][0].strip():
            raise UserError(f"{rows.where(0)} has no {name}.")


def _nothing(rows: Rows, columns: Columns) -> dict[str, list[Any]]:
    return {name: [NOTHING[kind]] * len(rows) for name, kind in columns.items()}


def _response() -> Layout:
    from mangakd.tasks.response.encode import COLUMNS

    needs = (("messages",), ("prompt", "answer"))
    return Layout("response", COLUMNS, needs, ("messages", "prompt"), ("messages", "answer", "text"), _check_response)


def _rewrite() -> Layout:
    from mangakd.tasks.rewrite.encode import COLUMNS

    needs = tuple((text, target) for text in ("utterance", "input") for target in ("rewrite", "target"))
    return Layout(
        "rewrite", COLUMNS, needs, ("history", "utterance", "input"), ("rewrite", "target"), _check_rewrite,
        "text2text-generation",
    )  # fmt: skip


def _rerank() -> Layout:
    columns: Columns = {"query": "text", "documents": "texts", "grades": "numbers"}
    return Layout(
        "rerank", columns, (("query", "documents"),), ("query",), ("documents",), _check_rerank, "text-ranking"
    )


def _triples() -> Layout:
    columns: Columns = {"query": "text", "positive": "text", "negative": "text"}
    return Layout(
        "triples",
        columns,
        (("query", "positive", "negative"),),
        ("query",),
        ("positive",),
        _check_filled,
        "text-ranking",
    )


def _embedding() -> Layout:
    columns: Columns = {"anchor": "text", "positive": "text", "negatives": "texts", "score": "number"}
    return Layout(
        "embedding", columns, (("anchor", "positive"),), ("anchor",), ("positive",), _check_pair, "sentence-similarity"
    )


def _intent() -> Layout:
    columns: Columns = {"text": "text", "label": "label"}
    return Layout("intent", columns, (("text", "label"),), (), ("text",), _check_class, "text-classification")


def _texts() -> Layout:
    return Layout("texts", {"text": "text"}, (("text",),), (), ("text",), _check_class)


LAYOUTS: Mapping[str, Callable[[], Layout]] = {
    "response": _response, "rewrite": _rewrite, "rerank": _rerank, "triples": _triples, "embedding": _embedding,
    "intent": _intent, "texts": _texts,
}  # fmt: skip
"""In the order in which a file's columns are compared with them."""


def layout_of(
    table: Table, task: str | None, texts: Sequence[str], names: Mapping[str, str | int], several: bool, origin: str
) -> Layout:
    """The layout of a table. task: its name, None to tell it from the columns. texts: columns to check in place of the answers.

    several: a row may have several labels. Raises UserError where no layout fits.
    """
    if task is not None and task not in LAYOUTS:
        raise UserError(f"reads={task} must be one of {', '.join(LAYOUTS)}{near(task, LAYOUTS)}")

    def has(name: str) -> bool:
        return names.get(name, name) != name or table.has(name)

    layout = next(
        (each for each in (make() for make in LAYOUTS.values()) if _chosen(each, task) and each.fits(has)), None
    )
    if layout is None and texts and task is None:
        layout = _texts()
    if layout is None:
        needs = [
            " and ".join(needs) for make in LAYOUTS.values() if _chosen(each := make(), task) for needs in each.needs
        ]
        raise UserError(
            f"{origin} has the columns {', '.join(table.names)}, and no task reads them: {'; or '.join(needs)} are needed. Name "
            "the columns by data.columns.prompt=question and the like, or give the columns to check: texts=[…]."
        )
    if several:
        columns: Columns = {name: "labels" if kind == "label" else kind for name, kind in layout.columns.items()}
        layout = replace(layout, columns=columns)
    return _with_texts(layout, texts, names) if texts else layout


def _chosen(layout: Layout, task: str | None) -> bool:
    return task is None or layout.name == task


def _with_texts(layout: Layout, texts: Sequence[str], names: Mapping[str, str | int]) -> Layout:
    """The layout with other columns as its answers. A column that the layout does not have is read as a text."""
    own = {str(names.get(name, name)): name for name in layout.columns}
    answers = tuple(own.get(text, text) for text in texts)
    columns: Columns = {
        **({} if layout.name == "texts" else layout.columns),
        **{name: layout.columns.get(name, "text") for name in answers},
    }
    prompts = tuple(name for name in layout.prompts if name not in answers)
    check = _check_filled if layout.name == "texts" else layout.check
    return replace(layout, columns=columns, prompts=prompts, answers=answers, check=check)
