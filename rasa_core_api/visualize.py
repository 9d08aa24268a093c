"""`python -m rasa_core_api.visualize`: a picture of the stories."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rasa_core_api.config import read_yaml_file
from rasa_core_api.domain import Domain
from rasa_core_api.events import UserUttered
from rasa_core_api.exceptions import InvalidConfiguration, RasaCoreError
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.releases import LATEST
from rasa_core_api.training.console import add_logging_options, add_trusted_option, begin_logging, until_interrupted
from rasa_core_api.training.drawing import draw
from rasa_core_api.training.fetching import add_stories_options, stories_path
from rasa_core_api.training.generator import Settings, generate
from rasa_core_api.training.policy_file import read_policies
from rasa_core_api.training.story_picture import Example, story_picture
from rasa_core_api.training.story_reader import read_stories
from rasa_core_api.trusted import class_finder

#: A conversation is drawn with this many of its last events, as by the releases.
EVENT_LIMIT = 100

FORMATS = (".html", ".json", ".dot")
#: What Rasa Core up to 0.11 drew; a page of that name is written instead.
IMAGES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".gif", ".ps")


def main(arguments: Sequence[str] | None = None, log_to: TextIO | None = None) -> int:
    """Run the command line; 0 when the picture is written. Log lines go to `log_to`."""
    parser = argparse.ArgumentParser(
        prog="python -m rasa_core_api.visualize",
        description="Draw stories as a graph.",
        epilog="example: python -m rasa_core_api.visualize -s stories.md -d domain.yml -o graph.html",
    )
    add_stories_options(parser)
    parser.add_argument("-d", "--domain", required=True, help="domain specification")
    parser.add_argument("-o", "--output", default="graph.html", help="picture: .html, or its data: .json, .dot")
    parser.add_argument("-m", "--max_history", type=int, default=2, help="nodes before, for merging (2)")
    parser.add_argument("-nlu", "--nlu_data", help="NLU data: messages are shown by an example")
    parser.add_argument("-c", "--config", help="policy file; checked, the picture does not depend on it")
    add_trusted_option(parser)
    add_logging_options(parser)
    options = parser.parse_args(arguments)
    if log_to is not None:
        begin_logging(options.loglevel, log_to)
    output = Path(options.output)
    if output.suffix in IMAGES:
        print(f"-o {output}: pictures are pages now; writing {output.with_suffix('.html')}", file=sys.stderr)
        output = output.with_suffix(".html")
    if output.suffix not in FORMATS:
        parser.error(f"-o {output}: possible are names that end with {', '.join(FORMATS)}")
    try:
        _visualize(options, output)
    except RasaCoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Finished graph creation. Saved into {output.absolute()}")
    return 0


def _visualize(options: argparse.Namespace, output: Path) -> None:
    if options.config:
        read_policies(read_yaml_file(options.config, os.environ), LATEST, options.config)
    domain = Domain.from_json(read_yaml_file(options.domain), LATEST, class_finder(options.trusted_modules))
    with stories_path(options) as path:
        files = read_stories([path], LATEST, RegexInterpreter(LATEST).parse_sync)
    settings = Settings(augmentation_factor=0, event_limit=EVENT_LIMIT)
    dialogues = generate(files.steps, domain, settings).dialogues
    example = _examples(Path(options.nlu_data)) if options.nlu_data else _no_example
    picture = story_picture((dialogue.events(EVENT_LIMIT) for dialogue in dialogues), options.max_history, example)
    if output.suffix == ".html":
        text = draw(picture, f"{files.blocks} stories")
    else:
        text = picture.as_json() if output.suffix == ".json" else picture.as_dot()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, "utf-8")
    except OSError as error:
        raise InvalidConfiguration(f"{output}: cannot be written: {error.strerror}") from None


def _no_example(event: UserUttered) -> str | None:
    return None


def _examples(path: Path) -> Example:
    """The first example with the intent and the entities of a message."""
    from rasa_core_api.nlu.data_loading import load_data

    found: dict[tuple[str | None, frozenset[str]], str] = {}
    for example in load_data(path).examples:
        names = frozenset(str(entity["entity"]) for entity in example.entities)
        found.setdefault((example.intent, names), example.text)

    def example_of(event: UserUttered) -> str | None:
        return found.get((event.intent_name, frozenset(str(entity["entity"]) for entity in event.entities)))

    return example_of


if __name__ == "__main__":
    sys.exit(until_interrupted(lambda: main(log_to=sys.stderr)))
