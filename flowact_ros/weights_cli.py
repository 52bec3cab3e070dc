# SPDX-License-Identifier: Apache-2.0
"""`flowact weights`: models of recognisers, planners and encoders, from official sources or a local path.

    flowact weights list
    flowact weights get faster-whisper-tiny.en
    flowact weights get whisper-tiny.en                          # for --audio-encoder whisper, too
    flowact weights get whisper-tiny.en --from ~/Downloads/tiny.en.pt
    flowact weights check                          # are they there, and what they were?

They are kept in ~/.cache/flowact/weights ($FLOWACT_CACHE/weights if that is set). A download that was interrupted goes
on where it stopped. HF_ENDPOINT names a mirror of huggingface.co, as for other programs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flowact_ros import weights_store
from flowact_ros.weights_store import WeightsError, find_entry, folder_of, stored
from flowact_ros.weights_table import ENTRIES, Entry


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="flowact weights", description=__doc__, formatter_class=raw)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs.add_parser("list", help="the models that can be had, and which are there")
    get = verbs.add_parser("get", help="fetch a model")
    get.add_argument("name", metavar="NAME", nargs="+", help="of the list")
    get.add_argument(
        "--from", dest="source", metavar="PATH", type=Path, help="a file or folder instead of the network"
    )
    check = verbs.add_parser("check", help="compare what is there with its SHA-256")
    check.add_argument("name", metavar="NAME", nargs="*", help="of the list (default: all that are there)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    options = _parser().parse_args(argv)
    try:
        if options.verb == "list":
            return _list()
        if options.verb == "check":
            return _check(options.name)
        return _get(options.name, options.source)
    except WeightsError as error:
        print(f"flowact weights: {error}", file=sys.stderr)
        return 1


def _list() -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"models, kept in {weights_store.cache_dir() / 'weights'}", title_justify="left", box=None
    )
    for title in ("name", "for", "MB", "licence", "there"):
        table.add_column(title, justify="right" if title == "MB" else "left", no_wrap=True)
    for entry in ENTRIES.values():
        there = "yes" if stored(entry.name) else "no"
        table.add_row(entry.name, entry.purpose, str(entry.megabytes), entry.licence, there)
    Console().print(table)
    return 0


def _get(names: list[str], source: Path | None) -> int:
    entries = [find_entry(name) for name in names]
    if source is not None and len(entries) > 1:
        print("flowact weights: --from goes with one NAME", file=sys.stderr)
        return 2
    for entry in entries:
        fetch(entry, source.expanduser() if source else None)
    return 0


def fetch(entry: Entry, source: Path | None = None) -> None:
    """Brings a model onto this machine, with a progress bar. Raises WeightsError."""
    with _Bars() as bars:
        unknown = weights_store.get(entry, source, bars.update)
    for file, found in unknown.items():
        print(f"{entry.name}: {file} has no official SHA-256 in our table; this one has {found}")
    print(f"{entry.name}: {folder_of(entry.name)}")


def _check(names: list[str]) -> int:
    status = 0
    entries = [find_entry(name) for name in names] or [
        entry for entry in ENTRIES.values() if stored(entry.name)
    ]
    for entry in entries:
        if not stored(entry.name):
            problems = [f"is not there: flowact weights get {entry.name}"]
        else:
            problems = weights_store.verify(entry)
            if problems:
                problems.append(
                    f"get it anew: rm -r {folder_of(entry.name)} && flowact weights get {entry.name}"
                )
        print(f"{entry.name}: {'; '.join(problems) or 'ok'}")
        status = 1 if problems else status
    if not entries:
        print(f"no models in {weights_store.cache_dir() / 'weights'}")
    return status


class _Bars:
    """A progress bar for each file that is fetched."""

    def __enter__(self) -> _Bars:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, object] = {}
        return self

    def update(self, name: str, have: int, total: int) -> None:
        if name not in self._tasks:
            self._progress.start()
            self._tasks[name] = self._progress.add_task(name)
        self._progress.update(self._tasks[name], completed=have, total=total or None)

    def __exit__(self, *_: object) -> None:
        if self._tasks:
            self._progress.stop()


if __name__ == "__main__":
    sys.exit(main())
