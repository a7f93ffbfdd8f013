"""The dataset card: README.md with the front matter of Hugging Face's hub."""

import json
from collections.abc import Mapping
from typing import Any

from mangakd.labelling.curate.parts import SPLITS

SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
TASKS = {"triples": "rerank", "texts": "response"}  # layouts of another name than their task


def card(content: Mapping[str, Any]) -> str:
    """content: of curated.json, without dates of its own, so that equal rows have an equal card."""
    sections = [
        _front(content), f"# {content['name']}\n", _use(content), _origin(content), _filters(content), _personal(content),
        _judge(content), _split(content),
    ]  # fmt: skip
    return "\n".join(filter(None, sections))


def _front(content: Mapping[str, Any]) -> str:
    parts = content["parts"]
    rows = sum(part["rows"] for part in parts.values())
    size = next((name for most, name in SIZES if rows < most), "n>1M")
    languages = content["settings"]["filters"].get("language", {}).get("languages", ())
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for name, part in parts.items():
        lines += [f"  - split: {SPLITS[name]}", f"    path: {part['file']}"]
    lines += ["language:", *(f"- {each}" for each in languages)] if languages else []
    lines += [
        "size_categories:",
        f"- {size}",
        "task_categories:",
        f"- {content['category']}",
        "tags:",
        "- mangakd",
        "---",
        "",
    ]
    return "\n".join(lines)


def _use(content: Mapping[str, Any]) -> str:
    parts, task = content["parts"], content["task"]
    keys = {"train": "data.path", "val": "data.val_path", "test": "data.test_path"}
    data = "triples" if task == "triples" else "files"
    words = " ".join(f"{keys[name]}={part['file']}" for name, part in parts.items())
    return f"```\nmangakd train task={TASKS.get(task, task)} data={data} {words}\n```\n"


def _origin(content: Mapping[str, Any]) -> str:
    data, label = content["data"], content["label"]
    lines = ["## Origin", "", f"- Rows: `{data['file']}`, {data['rows']} {data['unit']}s, SHA-256 `{data['sha256']}`."]
    if label is None:
        lines.append(f"- Teacher: not known. No `{data['file']}.label.json` of these bytes lay beside the rows.")
        return "\n".join([*lines, ""])
    teacher = label.get("teacher") or {}
    lines.append(f"- Teacher: {_pairs(teacher)}; the labels were written on {label.get('date', 'an unknown date')}.")
    prompts, template, ledger = label.get("data") or {}, label.get("template"), label.get("ledger")
    lines.append(f"- Prompts: {prompts.get('rows')} rows, SHA-256 `{prompts.get('sha256')}`.")
    lines.append(
        f"- Template: SHA-256 `{template['sha256']}`." if template else "- Template: none beside the settings."
    )
    lines.append(
        f"- Sampling: {_pairs(label.get('sampling') or {})}; seed {label.get('seed')}, samples {label.get('samples')}."
    )
    lines.append(
        f"- Ledger: {_pairs(ledger)}." if ledger else "- Ledger: none; the teacher ran on a machine of one's own."
    )
    return "\n".join([*lines, ""])


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items() if name != "path")


def _shown(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _filters(content: Mapping[str, Any]) -> str:
    rows, filters = content["data"]["rows"], content["filters"]
    lines = ["## Filters", "", "In this order; a row counts at the first filter that leaves it out.", ""]
    lines += ["| filter | left out | share | examples |", "| :-- | --: | --: | :-- |"]
    for each in filters:
        examples = "; ".join(_example(example) for example in each["examples"])
        lines.append(f"| {each['title']} | {each['rows']} | {each['rows'] / max(rows, 1):.1%} | {examples} |")
    left = sum(each["rows"] for each in filters)
    lines += [
        f"| all | {left} | {left / max(rows, 1):.1%} | |",
        "",
        "`left_out.jsonl` holds each of these rows with its reason.",
        "",
    ]
    off = content["off"]
    return "\n".join([*lines, *([f"Not run: {', '.join(off)}.", ""] if off else [])])


def _example(example: Mapping[str, Any]) -> str:
    text = f"{example['row']}: {example['detail']}, {example['text']}"
    return "".join("\\" + each if each in "|<>`*_[]" else each for each in text)


def _personal(content: Mapping[str, Any]) -> str:
    report = content["personal_data"]
    if report is None:
        return "## Personal data\n\nNobody looked for personal data: filters.personal_data.use=false.\n"
    lines = ["## Personal data", ""]
    if report["action"] == "replace":
        lines += ["Placeholders stand for these values. A value has one placeholder in all texts of its row.", ""]
        lines += ["| kind | values | rows |", "| :-- | --: | --: |"]
        lines += [f"| {kind} | {each['values']} | {each['rows']} |" for kind, each in report["kinds"].items()]
    else:
        lines.append("Rows with personal data are left out.")
    return "\n".join(
        [*lines, "", "Patterns and checksums find these kinds. They do not find names and addresses of people.", ""]
    )


def _judge(content: Mapping[str, Any]) -> str:
    judge = content["judge"]
    if judge is None:
        return ""
    settings = content["settings"]["judge"]
    agreement = "not known" if judge["agreement"] is None else f"{judge['agreement']:.1%}"
    rows = [("pass the filters", judge["stays"]), ("are left out by them (a sample)", judge["falls"])]
    lines = [
        "## Judge", "", f"{_pairs(settings['provider'])}; rubric SHA-256 `{settings['template']}`; rows stay from "
        f"{settings['keep']:g} of {settings['scale'][1]:g} on.", "", "| rows that | high score | low score | no score |",
        "| :-- | --: | --: | --: |",
    ]  # fmt: skip
    lines += [f"| {name} | {' | '.join(map(str, counts))} |" for name, counts in rows]
    lines += [
        "",
        f"Agreement of judge and filters, the mean of both groups: {agreement} (a judge that guesses has 50 %).",
        "",
    ]
    return "\n".join(lines)


def _split(content: Mapping[str, Any]) -> str:
    lines = ["## Split", "", f"By prompt and conversation, drawn with seed {content['settings']['seed']}.", ""]
    lines += ["| file | rows | prompts or conversations |", "| :-- | --: | --: |"]
    lines += [f"| {part['file']} | {part['rows']} | {part['groups']} |" for part in content["parts"].values()]
    return "\n".join([*lines, ""])
