"""What of the SOURCEs is uploaded, and in which order: the options of `upload` that say so, and what they mean."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from fastpost.cli_types import Line, Octets, OrderBy, Reading
from fastpost.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from fastpost.selection import Selection
    from fastpost.sources import Batch


_STDIN: Final = "standard input"
#: Names by which it is opened as well.
_STDIN_TOO: Final = ("<stdin>", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


class Choice(NamedTuple):
    """The values of the options. An empty one is false."""

    follow_symlinks: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    filter_from: tuple[BinaryIO, ...] = ()
    files_from: tuple[BinaryIO, ...] = ()
    files_from0: tuple[BinaryIO, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    order_by: tuple[str, bool] = ("walk", False)

    @property
    def is_listed(self) -> bool:
        """Are files named one by one?"""
        return bool(self.files_from or self.files_from0)

    def check(self) -> None:
        """Raise UsageError when two of them read standard input."""
        streams = [*self.filter_from, *self.files_from, *self.files_from0]
        if sum(_place(stream) == _STDIN for stream in streams) > 1:
            raise UsageError("two options read standard input (-), which can be read once: give one of them a file")

    def batches(self, sources: tuple[str, ...], *, sizes: bool) -> Iterator[Batch]:
        """Find the files; `sizes` has them looked up. Raises UsageError."""
        from fastpost.sources import walk

        self.check()
        selection = self._selection()
        if not self.is_listed:
            sizes = sizes or self.order_by[0] == "size"
            found = walk(sources, follow_symlinks=self.follow_symlinks, sizes=sizes, selection=selection)
        elif len(sources) > 1:
            raise UsageError("--files-from names files of one folder: give a single SOURCE with it")
        else:
            from fastpost.listed import listed
            from fastpost.name_lists import NameList, names_in

            lists = [NameList(stream, False, _place(stream)) for stream in self.files_from]
            lists += [NameList(stream, True, _place(stream)) for stream in self.files_from0]
            found = listed(sources[0], names_in(lists), follow_symlinks=self.follow_symlinks, selection=selection)
        if self.order_by == ("walk", False):
            return found
        from fastpost.ordering import ordered

        return ordered(found, *self.order_by)

    def nothing_in(self, sources: str) -> str:
        """Say that no file was found there."""
        if self.is_listed:
            return f"no file in {sources} is named and taken"
        everything = self._replace(follow_symlinks=False, order_by=("walk", False)) == Choice()
        return f"no file in {sources}" + ("" if everything else " passes the filters")

    def _selection(self) -> Selection | None:
        patterns = self.include or self.exclude or self.filter_from
        if not patterns and self.min_size is None and self.max_size is None:
            return None
        from fastpost.selection import Selection, filter_lines, rules

        filters = (rule for stream in self.filter_from for rule in filter_lines(stream, _place(stream)))
        return Selection(rules(self.include, self.exclude, filters), min_size=self.min_size, max_size=self.max_size)


def _place(stream: BinaryIO) -> str:
    """Return what a file is called in messages."""
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) and name not in _STDIN_TOO else _STDIN


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets their values as one argument, `choice`."""

    @functools.wraps(command)
    def chosen(**given: Any) -> Any:
        choice = Choice(*(given.pop(name) for name in Choice._fields))
        return command(choice=choice, **given)

    for option in reversed(_OPTIONS):
        option(chosen)
    return chosen


_OPTIONS = (
    click.option("--follow-symlinks", is_flag=True, help="Upload what symbolic links point to; default: skip them."),
    click.option(
        "--include",
        metavar="PATTERN",
        multiple=True,
        type=Line(),
        help="Upload only files that match: *.jpg, dir/, /top/**, {a,b}. The first match decides: of --include, then "
        "--exclude, then --filter-from.",
    ),
    click.option("--exclude", metavar="PATTERN", multiple=True, type=Line(), help="Leave out files that match."),
    click.option(
        "--filter-from",
        metavar="FILE",
        multiple=True,
        type=Reading(),
        help="Rules in their order, one a line: '+ PATTERN' uploads, '- PATTERN' leaves out. -: standard input.",
    ),
    click.option(
        "--files-from",
        metavar="FILE",
        multiple=True,
        type=Reading(),
        help="Upload the files of SOURCE that FILE names, one a line, without a walk. -: standard input.",
    ),
    click.option(
        "--files-from0",
        metavar="FILE",
        multiple=True,
        type=Reading(),
        help="The same with a NUL behind each name, as find -print0 writes them.",
    ),
    click.option("--min-size", metavar="SIZE", type=Octets(), help="Leave out smaller files: 4096, 10k, 1.5MB."),
    click.option("--max-size", metavar="SIZE", type=Octets(), help="Leave out larger files."),
    click.option(
        "--order-by",
        metavar="KEY",
        type=OrderBy(),
        default="walk",
        show_default=True,
        help="walk, size or name; size,desc for the largest first. All files are found before the first is sent.",
    ),
)
