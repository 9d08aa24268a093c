"""Stories from a file, a folder or an address."""

from __future__ import annotations

import argparse
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.training.story_reader import MAX_FILE_SIZE

#: Seconds that fetching stories may take to connect and between two pieces.
TIME_LIMIT = 30.0


def add_stories_options(parser: argparse.ArgumentParser, required: bool = True) -> argparse._MutuallyExclusiveGroup:
    """`-s` or `--url`, exactly one of them (at most one where none is `required`)."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("-s", "--stories", help="story file or folder")
    group.add_argument("--url", help="address of a story file")
    return group


@contextmanager
def stories_path(options: argparse.Namespace) -> Iterator[Path]:
    """The path of the stories that the options name; what was fetched is gone afterwards."""
    if options.stories:
        yield Path(options.stories)
        return
    if not options.url:
        raise InvalidTrainingData("name the stories with -s or --url")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "stories.md"
        path.write_bytes(fetch(options.url))
        yield path


def fetch(url: str) -> bytes:
    """The body at a http or https address. Raises `InvalidTrainingData`."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidTrainingData(f"{url}: expected an address that begins with http:// or https://")
    try:
        with urllib.request.urlopen(url, timeout=TIME_LIMIT) as answer:
            body: bytes = answer.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        raise InvalidTrainingData(f"{url}: cannot be fetched ({error})") from None
    if len(body) > MAX_FILE_SIZE:
        raise InvalidTrainingData(f"{url}: larger than {MAX_FILE_SIZE >> 20} MiB")
    return body
