"""Who may know whom: the arrows of docs/architecture.md, read off the imports."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "fastpost"

DATA_PLANE = "_blocked _hpack_encoder _scheduler _chunker _payload _gather _frames _table _streams"

#: From the bottom up: each module, and the modules of fastpost that it may import, for types too.
ARROWS = {
    "errors": "",
    "config": "errors",
    "_hpack_tables": "",
    "_hpack_encoder": "_hpack_tables",
    "_field_validity": "",
    "_hpack_decoder": "_field_validity _hpack_tables errors",
    "_scheduler": "",  # counts of octets, neither bytes nor files
    "_folder": "",
    "_chunker": "_folder errors",  # limits, no stream ids
    "_payload": "_chunker",
    "_gather": "_chunker",
    "_frames": "errors",
    "_listing": "_payload",  # for types
    "media_types": "errors",
    "_envelope": "_chunker",
    "forms": "_envelope media_types errors",
    "_labels": "media_types forms",  # names in, octets out
    "_table": "_envelope _chunker _payload _listing _labels errors",
    "_meter": "_table",
    "_alarm": "",
    "_readahead": "_folder",
    "_patience": "",
    "_blocked": "",
    "_connection_window": "_frames errors",
    "_delivery": "_table",
    "_control_frames": "_frames _gather",
    "_request_headers": "_hpack_encoder _gather _frames _table",
    "_request_content": "_folder _chunker _readahead _gather _frames _table errors",
    "_rate_limit": "",
    "_line": "_request_content _table",
    "_open_streams": "_blocked _connection_window _control_frames _delivery _request_headers _request_content _line "
    "_rate_limit _hpack_encoder _scheduler _gather _frames _table errors",
    "_sending": "_open_streams _request_content _scheduler _frames _table",
    "_streams": "_sending _rate_limit _hpack_encoder _hpack_decoder _frames _table errors",
    "_wire": "_patience _streams",
    "session": f"{DATA_PLANE} _rate_limit errors config",
    "target": "forms _labels media_types errors config",
    "endpoint": "target config",
    "tcp": "endpoint errors",
    "tls": "errors config",
    "connection": f"endpoint tcp tls session _rate_limit _wire _patience {DATA_PLANE} target errors config",
    "globs": "errors",
    "selection": "globs _listing errors",
    "sources": "selection _listing _payload errors config",
    "listed": "_listing selection sources errors",
    "name_lists": "errors",
    "ordering": "_listing sources",
    "retry": "errors config",
    "tally": "_listing _meter _table sources errors",
    "feed": "sources",
    "growth": "",
    "sums": "growth connection session _streams tally",
    "cores": "",
    "pool": "cores endpoint _rate_limit sums growth connection session tls _streams _table tally target retry errors "
    "config",
    "digest": "_table sources errors",
    "waiting": "_table digest sources errors",
    "redirects": "_table target sources tally config",
    "repeats": "waiting redirects pool connection _table digest target retry tally errors config",
    "run": "_rate_limit repeats pool connection _table digest target sources feed retry tally errors config",
    "uploader": "run _table target sources tally errors config",
    "collector": "",
    "open_files": "_folder errors",
    "worker": "collector open_files uploader _table sources tally errors config",
    "forks": "config",
    "portions": "cores sources",
    "workers": "forks portions worker sources tally errors config",
    "processes": "forks workers worker portions cores uploader run _table target sources tally errors config",
    "_records": "_table _chunker",
    "recorded": "_records target sources errors",
    "journal": "recorded _records _table target sources errors",
    "statements": "digest _table",
    "verify": "statements digest _table sources errors",
    "ingest_store": "",
    "ingest_app": "ingest_store",
    "ingest_worker": "ingest_app ingest_store",
    "ingest": "ingest_app errors",  # the worker is another process, started by its name
    "outlet": "errors",
    "servers": "",
    "causes": "servers tally",
    "report": "causes tally _table _meter errors",
    "record_file": "",
    "progress": "report outlet tally",
    "journal_show": "recorded report outlet sources errors",
    "dry_run": "recorded report outlet target sources errors config",
    "signals": "outlet errors",
    "upload_run": "record_file uploader processes signals journal verify progress report outlet tally target sources "
    "_table errors config",
    "__init__": "uploader _table _streams sources tally errors config",
    "sizes": "errors",
    "load": "_payload _alarm sizes feed sources errors",
    "timeline": "",
    "measurement": "_meter _table load timeline run feed target sources tally config errors",
    "hdr": "_meter",
    "bench_report": "__init__ measurement hdr causes report tally",
    "bench_text": "bench_report timeline hdr report",
    "thresholds": "bench_report report errors",
    "bootstrap": "",
    "compare": "__init__ bench_report bootstrap errors",
    "compare_text": "bench_report report",
    "reach": "endpoint tcp tls target config errors",
    "probe": "endpoint reach servers target config errors",
    "probe_text": "report",
    "page": "report",
    "bench_charts": "page bench_text bench_report timeline causes hdr",
    "bench_page": "bench_charts page bench_text bench_report report",
    "compare_page": "page compare compare_text",
    "bench_files": "bench_page bench_report measurement timeline hdr causes report _meter _table",
    "bench_view": "measurement timeline progress report outlet",
    "bench_worker": "measurement _meter _table load timeline tally errors",
    "bench_processes": "bench_worker forks measurement load tally errors",
    "bench_run": "bench_report bench_text bench_files bench_view bench_processes thresholds measurement timeline "
    "signals outlet _meter _table errors",
    "cli_process": "outlet report errors",
    "cli_types": "cli_process sizes target errors",
    "cli_network": "cli_types target errors",
    "cli_selection": "cli_types selection sources listed name_lists ordering errors",
    "cli_bench": "cli_types cli_process cli_network "
    "collector open_files bench_run bench_files compare compare_text compare_page probe "
    "probe_text report thresholds measurement load sizes _payload ingest outlet config errors",
    "cli": "cli_bench cli_types cli_process cli_network cli_selection "
    "collector __init__ open_files upload_run dry_run journal journal_show ingest report "
    "outlet sources errors config",
    "__main__": "cli collector errors",
}

#: Packages and modules that only the named ones may import.
RESERVED = {
    "h2": "session probe",  # probe: an instrument beside the engine
    "hpack": "",  # it judges ours in the tests
    "hyperframe": "",
    "click": "cli cli_bench cli_network cli_process cli_selection cli_types",
    "rich": "cli outlet report progress bench_text compare_text",
    "hdrh": "hdr",
    "http_sf": "statements",
    "h2corn": "ingest_worker",
    "trustme": "ingest_worker",
    # Below the connection time is an argument and nothing waits. A run has tasks and asks once a batch what time it is;
    # upload_run and ingest_worker start event loops.
    "asyncio": "tcp connection feed pool redirects waiting repeats run uploader processes worker upload_run signals "
    "load measurement bench_worker bench_processes bench_run ingest_worker",
    "uvloop": "connection uploader worker upload_run bench_worker bench_run ingest_worker",
    "time": "connection probe reach digest journal pool repeats run uploader cores processes upload_run load "
    "measurement bench_worker bench_processes bench_run",
    "socket": "tcp connection reach worker workers ingest ingest_worker",
    "ssl": "tls connection _wire probe reach ingest_worker",
    "posix.time": "",
    # _chunker: only after a read that found nothing in the cache, to tell a disk from a cache that was not asked well.
    # _patience and _wire are the connection's: they wait, and know what time it is by then.
    "libc.time": "_alarm _chunker _patience _wire",
}

#: What a process has and a library has no business with.
PROCESS = re.compile(
    r"\b(sys\.(stdin|stdout|stderr|exit|argv)|os\.(environb?|getenv|_exit))\b|(?<![.\w])(print|input)\("
)

#: Loaded by the commands that need them, never by a start.
HEAVY = {"fastpost.page", "rich", "hdrh", "h2corn", "h2", "hpack", "uvloop", "asyncio", "ssl"}


class Import(NamedTuple):
    """One imported module; `late` when it is named inside a function or for types only."""

    module: str
    late: bool


def names() -> list[str]:
    return sorted({path.stem for path in PACKAGE.glob("*.py*") if path.suffix in {".py", ".pyx", ".pxd", ".pyi"}})


def cython_modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.pyx"))


def imports(name: str) -> Iterator[Import]:
    for suffix in (".py", ".pyi"):
        if (path := PACKAGE / (name + suffix)).exists():
            yield from python_imports(ast.parse(path.read_text("utf-8")))
    for suffix in (".pyx", ".pxd"):
        if (path := PACKAGE / (name + suffix)).exists():
            yield from cython_imports(path.read_text("utf-8"))


def python_imports(node: ast.AST, late: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                yield from (Import(alias.name, late) for alias in child.names)
            case ast.ImportFrom():
                yield from (Import(module, late) for module in targets(child.module or "", child.level, child.names))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from python_imports(child, late=True)
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from python_imports(child, late=True)
            case _:
                yield from python_imports(child, late)


def targets(module: str, level: int, aliases: list[ast.alias]) -> list[str]:
    """Return the modules of a `from` import: `from fastpost import x` names the module x."""
    package = ".".join(filter(None, ["fastpost" if level else "", module]))
    return [f"fastpost.{alias.name}" for alias in aliases] if package == "fastpost" else [package]


def cython_imports(text: str) -> Iterator[Import]:
    for line in text.splitlines():
        if found := re.match(r"\s*from\s+(\.*)([\w.]*)\s+c?import\s+(.+)", line):
            aliases = [ast.alias(alias.split()[0]) for alias in found[3].strip("() ").split(",") if alias.strip()]
            yield from (Import(module, late=False) for module in targets(found[2], len(found[1]), aliases))
        elif found := re.match(r"\s*c?import\s+([\w., ]+)", line):
            yield from (Import(part.split()[0], late=False) for part in found[1].split(",") if part.strip())
        elif re.match(r"\s*cdef\s+extern\s+from\s+[\"'<]+(sys/)?time", line):
            yield Import("libc.time", late=False)


def own(module: str) -> str | None:
    """Return the name of a module of fastpost, None for one of others."""
    package, _, rest = module.partition(".")
    if package != "fastpost":
        return None
    first = rest.partition(".")[0]
    return first if first in ARROWS or first in names() else "__init__"


def test_the_arrows_point_down() -> None:
    below: set[str] = set()
    for name, allowed in ARROWS.items():
        assert set(allowed.split()) <= below, name
        below.add(name)


@pytest.mark.parametrize("name", names())
def test_a_module_imports_only_what_lies_below_it(name: str) -> None:
    assert name in ARROWS, f"{name} is new: give it a place in ARROWS and in docs/architecture.md"
    imported = {found for one in imports(name) if (found := own(one.module))} - {name}
    assert imported <= set(ARROWS[name].split())


@pytest.mark.parametrize("name", names())
def test_a_reserved_module_is_imported_only_where_it_belongs(name: str) -> None:
    imported = {
        reserved
        for one in imports(name)
        for reserved in RESERVED
        if one.module == reserved or one.module.startswith(reserved + ".")
    }
    assert {reserved for reserved in imported if name not in RESERVED[reserved].split()} == set()


# What is forked is a process that ends itself.
@pytest.mark.parametrize(
    "name", sorted(set(names()) - {"__main__", "cli", "cli_network", "cli_process", "worker", "forks"})
)
def test_only_the_command_line_touches_the_process(name: str) -> None:
    paths = [path for suffix in (".py", ".pyx") if (path := PACKAGE / (name + suffix)).exists()]
    touched = [found[0] for path in paths for found in PROCESS.finditer(code(path.read_text("utf-8")))]
    assert touched == []


def code(text: str) -> str:
    """Return the text without comments and docstrings (of plain one-line strings enough is left to be seen)."""
    return re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", names())
def test_rich_is_loaded_only_to_draw(name: str) -> None:
    at_once = {one.module.partition(".")[0] for one in imports(name) if not one.late}
    assert "rich" not in at_once


def test_a_start_loads_nothing_heavy() -> None:
    script = f"""
import sys
from fastpost.cli import main
sys.argv = ["fastpost", "--version"]
try:
    main()
finally:
    print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fastpost ")
    assert done.stderr.split() == []


@pytest.mark.parametrize("name", cython_modules())
def test_a_cython_module_declares_itself_for_c_and_for_python(name: str) -> None:
    assert (PACKAGE / f"{name}.pxd").exists()
    assert (PACKAGE / f"{name}.pyi").exists()


@pytest.mark.parametrize("name", cython_modules())
def test_a_cython_module_is_really_compiled(name: str) -> None:
    module = importlib.import_module(f"fastpost.{name}")
    assert str(module.__file__).endswith(".so")


@pytest.mark.parametrize("name", cython_modules())
def test_a_stub_names_what_the_compiled_module_has(name: str) -> None:
    module = importlib.import_module(f"fastpost.{name}")
    stub = ast.parse((PACKAGE / f"{name}.pyi").read_text("utf-8"))
    missing = [path for path in declared(stub) if not has(module, path)]
    assert missing == []


def declared(node: ast.AST) -> Iterator[list[str]]:
    """Yield the attribute paths of the functions, classes and class members in a stub."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(name)):
                yield [name]
            case ast.ClassDef(name=name):
                yield [name]
                yield from ([name, *path] for path in declared(child))


def has(thing: object, path: list[str]) -> bool:
    for name in path:
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True
