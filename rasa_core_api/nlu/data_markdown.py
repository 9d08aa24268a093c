"""Training data in markdown, read and written.

Sections are `## intent:NAME`, `## synonym:VALUE`, `## regex:NAME` and `## lookup:NAME`; items start with `-`, `*` or
`+`; entities are annotated as `[surface text](entity)` or `[surface text](entity:value)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rasa_core_api.constants import JSON
from rasa_core_api.nlu.data import Example, Lookup, TrainingData, broken, clean

SECTIONS = ("intent", "synonym", "regex", "lookup")
MAX_LINE = 20_000  # characters

_HEADER = re.compile(rf"##\s*({'|'.join(SECTIONS)}):(.+)")
_ITEM = re.compile(r"\s*[-*+]\s*(.+)")
_ENTITY = re.compile(r"\[([^\]]+)\]\(([^:)]*)(?::([^)]+))?\)")
_HALF_ENTITY = re.compile(r"\[[^\]]*\]\(")
_COMMENT_END = re.compile("--!*>")


def looks_like_markdown(text: str) -> bool:
    """Whether a file's text is taken for this format: one section header with exactly one blank is enough."""
    return any(f"## {section}:" in text for section in SECTIONS)


def read_markdown(text: str, file: str) -> TrainingData:
    """Read a file's text; lines outside items and headers are ignored. `file` is for messages."""
    data = TrainingData()
    section = title = odd = ""
    tables: dict[str, list[str]] = {}
    for number, line in _lines(clean(text)):
        if len(line) > MAX_LINE:
            raise broken(file, number, f"the line has {len(line)} characters, more than {MAX_LINE}")
        line = line.strip()
        header = _HEADER.search(line)
        if header:
            section, title, odd = header[1], header[2], ""
            continue
        if line.startswith("#"):
            odd = f"{file}, line {number}: {line[:40]!r} begins no section ({', '.join(SECTIONS)})"
        item = _ITEM.match(line)
        if item and odd:
            place = f"belong to '## {section}:{title}'" if section else "are ignored"
            data.warnings.append(f"{odd}; the items after it {place}")
            odd = ""
        if item is None:
            if section == "lookup" and line:
                _add_lookup_file(data, title, line, file, number)
        elif section == "intent":
            example = parse_example(item[1], title)
            data.examples.append(example)
            for entity in example.entities:
                surface = example.text[entity["start"] : entity["end"]]
                if entity["value"] != surface:
                    data.add_synonym(surface, entity["value"])
            if _HALF_ENTITY.search(example.text):
                data.warnings.append(f"{file}, line {number}: this looks like an entity, but is not closed")
        elif section == "synonym":
            data.add_synonym(item[1], title)
        elif section == "regex":
            data.add_regex(title, item[1], file, number)
        elif section == "lookup":
            if title not in tables:
                tables[title] = []
                data.lookups.append(Lookup(title, ()))
            tables[title].append(item[1])
    data.lookups = [
        Lookup(table.name, tuple(tables[table.name])) if table.elements == () else table for table in data.lookups
    ]
    return data


def parse_example(item: str, intent: str | None) -> Example:
    """The example of one item: markup removed, entities with their places in what remains."""
    parts: list[str] = []
    entities: list[Mapping[str, JSON]] = []
    length = position = 0
    for match in _ENTITY.finditer(item):
        before = item[position : match.start()]
        surface, name, value = match.groups()
        start = length + len(before)
        length = start + len(surface)
        entities.append({"start": start, "end": length, "value": value or surface, "entity": name})
        parts += [before, surface]
        position = match.end()
    parts.append(item[position:])
    return Example("".join(parts), None if intent is None else intent.strip(), tuple(entities))


def write_markdown(data: TrainingData) -> str:
    """The data set as markdown, sections in the order of intents, synonyms, regexes, lookup tables.

    Raises InvalidTrainingData for an example or name that this format cannot express (no intent, line breaks,
    brackets that would be read as an annotation, entities with further members); JSON can express them.
    """
    sections: list[tuple[str, list[str]]] = []
    for intent in dict.fromkeys(example.intent for example in data.examples):
        lines = [_item(example) for example in data.examples if example.intent == intent]
        sections.append((f"## intent:{intent}", lines))
    groups: dict[str, list[str]] = {}
    annotated = {
        example.text[entity["start"] : entity["end"]]: entity["value"]
        for example in data.examples
        for entity in example.entities
    }
    for text, value in data.synonyms.items():
        if annotated.get(text) == value:  # reading the annotation brings it back
            continue
        groups.setdefault(value, []).append(f"- {text}")
    sections += [(f"## synonym:{value}", lines) for value, lines in sorted(groups.items())]
    patterns: dict[str, list[str]] = {}
    for item in data.sorted_regexes():
        patterns.setdefault(item["name"], []).append(f"- {item['pattern']}")
    sections += [(f"## regex:{name}", lines) for name, lines in patterns.items()]
    for table in data.lookups:
        elements = [f"  {table.elements}"] if isinstance(table.elements, str) else [f"- {e}" for e in table.elements]
        sections.append((f"## lookup:{table.name}", elements))
    text = "\n".join("\n".join([header, *lines, ""]) for header, lines in sections)
    again = read_markdown(text, "")
    # an annotation that names another value is a synonym too, so those may come in addition
    if (again.regexes, again.lookups) != (data.sorted_regexes(), data.lookups) or not (
        data.synonyms.items() <= again.synonyms.items()
    ):
        raise broken(
            "markdown", None, "a synonym, regex or lookup table has a line break or a blank at its ends; use JSON"
        )
    return text


def _item(example: Example) -> str:
    text, position = "", 0
    for entity in sorted(example.entities, key=lambda entity: int(entity["start"])):
        surface = example.text[entity["start"] : entity["end"]]
        name = entity["entity"] if entity["value"] == surface else f"{entity['entity']}:{entity['value']}"
        text += f"{example.text[position : entity['start']]}[{surface}]({name})"
        position = entity["end"]
    text += example.text[position:]
    again = read_markdown(f"## intent:{example.intent}\n- {text}", "").examples
    if example.intent is None or again != [example]:
        raise broken("markdown", None, f"this example cannot be written as markdown, use JSON: {example.text[:80]!r}")
    return f"- {text}"


def _add_lookup_file(data: TrainingData, title: str, line: str, file: str, number: int) -> None:
    shortened = re.split(r"[-*+]", line)[0]
    if shortened != line:
        data.warnings.append(
            f"{file}, line {number}: rasa_nlu would cut the file name {line!r} to {shortened!r}; the whole name is used"
        )
    data.lookups.append(Lookup(title, line, file, number))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines without comments, with their numbers; a comment over several lines joins the first and the last."""
    number, pending, start = 1, "", 0
    while start <= len(text):
        comment = text.find("<!--", start)
        end = _COMMENT_END.search(text, comment + 4) if comment >= 0 else None
        piece = text[start:] if end is None else text[start:comment]
        lines = (pending + piece + "\0").splitlines()
        for line in lines[:-1]:
            yield number, line
            number += 1
        pending = lines[-1][:-1]
        if end is None:
            break
        number += text.count("\n", comment, end.end())
        start = end.end()
    yield number, pending
