"""`python -m rasa_core_api.nlu.convert`: a model directory of rasa_nlu 0.11 to 0.15 in the new format.

What can be read is taken over as it is, so that the answers stay the same; other parts are trained again from the
directory's training data. The old directory is not changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rasa_core_api.exceptions import InvalidParameter, RasaCoreError
from rasa_core_api.training.console import add_logging_options, begin_logging, use_one_thread


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rasa_core_api.nlu.convert",
        description="Write the model of an old rasa_nlu directory in the new format.",
        epilog="example: python -m rasa_core_api.nlu.convert models/nlu/current models/nlu/new",
    )
    parser.add_argument("old", help="directory that rasa_nlu wrote; it has a metadata.json")
    parser.add_argument("new", help="directory to write; it must not exist")
    add_logging_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the model was written."""
    use_one_thread(os.environ)
    options = make_parser().parse_args(arguments)
    begin_logging(options.loglevel, sys.stderr)
    try:
        _convert(Path(options.old), Path(options.new))
    except (RasaCoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _convert(old: Path, new: Path) -> None:
    from rasa_core_api.nlu.legacy import load_legacy, read_metadata
    from rasa_core_api.nlu.storage import is_new_format, load_model, save_model

    if new.exists():
        raise InvalidParameter(f"{new} exists; name a directory that does not", parameter="new")
    if is_new_format(read_metadata(old)):
        raise InvalidParameter(f"{old} is in the new format already", parameter="old")
    model, report = load_legacy(old, with_data=True)
    save_model(model, new)
    load_model(new)  # proves that it can be read
    for name in ("exact", "retrained", "skipped"):
        print(f"{name}: {', '.join(getattr(report, name)) or 'none'}")
    print(f"wrote the model to {new}")


if __name__ == "__main__":
    sys.exit(main())
