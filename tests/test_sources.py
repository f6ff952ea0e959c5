"""sources: what the walk finds, how it is named, and what it says about what can't be uploaded."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pathlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost import sources
from fastpost._listing import Listing
from fastpost.errors import FastpostError, FileUnreadable, FileVanished, NotRegularFile, UsageError
from fastpost.selection import Selection, rules
from fastpost.sources import Batch, Rejected, Upload, check_place, printable, walk

NOBODY = 65534


def found(*roots: Any, **options: Any) -> Batch:
    """Walk to the end and return everything as one batch."""
    whole = Batch()
    for batch in walk(roots, **options):
        whole.uploads += batch.uploads
        whole.rejected += batch.rejected
        whole.skipped += batch.skipped
    return whole


def names(batch: Batch) -> set[bytes]:
    assert len({upload.name for upload in batch.uploads}) == len(batch.uploads), "found twice"
    return {upload.name for upload in batch.uploads}


def reasons(batch: Batch) -> dict[bytes, FastpostError]:
    return {rejected.name: rejected.error for rejected in batch.rejected}


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("a.txt", "photos/b.jpg", "photos/2024/c.jpg", "photos/2024/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Make permissions bite, also when the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except OSError as error:
        pytest.skip(f"permissions don't bite: running as root, and it can't be given up ({error})")
    try:
        yield
    finally:
        os.seteuid(0)


class TestNames:
    def test_a_folder_gives_names_relative_to_it(self, tree: pathlib.Path) -> None:
        batch = found(tree)
        assert names(batch) == {b"a.txt", b"photos/b.jpg", b"photos/2024/c.jpg", b"photos/2024/d.jpg"}
        assert not batch.rejected
        assert batch.skipped == 0

    def test_a_file_gives_its_base_name(self, tree: pathlib.Path) -> None:
        assert names(found(tree / "photos" / "2024" / "c.jpg")) == {b"c.jpg"}

    def test_the_file_can_be_opened(self, tree: pathlib.Path) -> None:
        for upload in found(tree, tree / "a.txt").uploads:
            assert pathlib.Path(os.fsdecode(upload.file)).read_bytes().endswith(upload.name)

    @pytest.mark.parametrize("ending", ["", "/", "/.", "//"])
    def test_a_trailing_slash_changes_nothing(self, tree: pathlib.Path, ending: str) -> None:
        assert names(found(f"{tree}{ending}")) == names(found(tree))

    @pytest.mark.parametrize("given_as", [str, os.fsencode, pathlib.Path])
    def test_sources_of_every_type(self, tree: pathlib.Path, given_as: Any) -> None:
        assert names(found(given_as(tree / "photos"))) == {b"b.jpg", b"2024/c.jpg", b"2024/d.jpg"}

    def test_a_relative_source(self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tree / "photos")
        assert {(u.file, u.name) for u in found(".").uploads} >= {(b"./b.jpg", b"b.jpg")}
        assert names(found("../a.txt")) == {b"a.txt"}

    def test_several_sources_come_in_order(self, tree: pathlib.Path) -> None:
        uploads = found(tree / "photos" / "b.jpg", tree / "photos" / "2024", tree / "a.txt").uploads
        assert [u.name for u in uploads][::3] == [b"b.jpg", b"a.txt"]

    def test_two_sources_may_hold_the_same_name(self, tree: pathlib.Path) -> None:
        assert [u.name for u in found(tree / "a.txt", tree / "a.txt").uploads] == [b"a.txt", b"a.txt"]

    def test_a_source_that_is_a_link_is_followed(self, tree: pathlib.Path) -> None:
        (tree / "to-folder").symlink_to("photos")
        (tree / "to-file").symlink_to("a.txt")
        assert names(found(tree / "to-folder", tree / "to-file")) == {
            b"b.jpg", b"2024/c.jpg", b"2024/d.jpg", b"to-file",
        }  # fmt: skip

    @pytest.mark.parametrize(
        "name",
        [b"a space", b"new\nline", b"\xff\xfe", "grün.jpg".encode(), b"100%?#+\"'", b"-rf", b"\x01", b"n" * 255],
    )
    def test_names_are_raw_octets(self, tmp_path: pathlib.Path, name: bytes) -> None:
        folder = os.fsencode(tmp_path)
        os.mkdir(os.path.join(folder, name))
        path = os.path.join(folder, name, name)
        pathlib.Path(os.fsdecode(path)).touch()
        assert [(u.file, u.name) for u in found(tmp_path).uploads] == [(path, name + b"/" + name)]
        assert names(found(path)) == {name}

    def test_hidden_files_are_files(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git" / ".config").touch()
        assert names(found(tmp_path)) == {b".git/.config"}

    def test_a_hard_link_is_a_file_of_its_own(self, tree: pathlib.Path) -> None:
        os.link(tree / "a.txt", tree / "b.txt")
        assert names(found(tree)) >= {b"a.txt", b"b.txt"}


class TestSizes:
    def test_unknown_unless_asked_for(self, tree: pathlib.Path) -> None:
        assert {u.size for u in found(tree).uploads} == {-1}

    def test_asked_for(self, tree: pathlib.Path) -> None:
        assert {u.name: u.size for u in found(tree, sizes=True).uploads}[b"photos/b.jpg"] == len("photos/b.jpg")

    def test_free_for_a_plain_file(self, tree: pathlib.Path) -> None:
        assert [u.size for u in found(tree / "a.txt").uploads] == [len("a.txt")]


class TestBatches:
    def test_nothing_found_is_no_batch(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "empty").mkdir()
        assert list(walk([tmp_path])) == []
        assert list(walk([])) == []

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
    def test_batches_keep_to_their_limit(self, tmp_path: pathlib.Path, limit: int) -> None:
        for place in range(20):
            (tmp_path / f"folder{place % 3}").mkdir(exist_ok=True)
            (tmp_path / f"folder{place % 3}" / str(place)).touch()
            os.mkfifo(tmp_path / f"folder{place % 3}" / f"fifo{place}")
        batches = list(walk([tmp_path, tmp_path / "folder0" / "0"], batch=limit))
        sizes = [len(batch) for batch in batches]
        assert sum(sizes) == 41
        assert max(sizes) <= limit
        assert min(sizes) >= 1
        assert limit >= 41 or sizes[0] == limit, "full batches go out, not crumbs"

    def test_rejections_alone_fill_batches_too(self, tmp_path: pathlib.Path) -> None:
        for place in range(10):
            (tmp_path / str(place)).symlink_to("nowhere")
        assert [len(batch.rejected) for batch in walk([tmp_path], batch=4)] == [4, 4, 2]

    def test_skipped_links_alone_are_a_batch(self, tree: pathlib.Path) -> None:
        (tree / "links").mkdir()
        (tree / "links" / "a").symlink_to("../a.txt")
        assert [(len(batch), batch.skipped) for batch in walk([tree / "links"])] == [(0, 1)]

    def test_a_sparse_tree_does_not_wait_for_a_full_batch(self, tmp_path: pathlib.Path) -> None:
        for place in range(500):
            (tmp_path / str(place)).mkdir()
            (tmp_path / str(place) / "file").touch()
        first = next(walk([tmp_path], batch=100_000))
        assert 0 < len(first) < 500

    def test_the_walk_is_lazy_and_lets_go(self, tmp_path: pathlib.Path) -> None:
        for place in range(100):
            (tmp_path / str(place)).touch()
        before = len(os.listdir("/proc/self/fd"))
        batches = walk([tmp_path], batch=10)
        assert len(os.listdir("/proc/self/fd")) == before
        next(batches)
        (tmp_path / "late").mkdir()
        assert len(os.listdir("/proc/self/fd")) == before + 1, "one folder is open at a time"
        batches.close()  # type: ignore[attr-defined]
        assert len(os.listdir("/proc/self/fd")) == before


class TestLinks:
    def test_links_inside_are_skipped_and_counted(self, tree: pathlib.Path) -> None:
        (tree / "to-file").symlink_to("a.txt")
        (tree / "to-folder").symlink_to("photos")
        (tree / "to-itself").symlink_to(".")
        batch = found(tree)
        assert len(batch.uploads) == 4
        assert batch.skipped == 3
        assert not batch.rejected

    def test_links_are_followed_on_demand(self, tree: pathlib.Path) -> None:
        (tree / "photos" / "to-file").symlink_to("../a.txt")
        (tree / "to-folder").symlink_to("photos/2024")
        batch = found(tree, follow_symlinks=True)
        assert names(batch) == {
            b"a.txt", b"photos/b.jpg", b"photos/2024/c.jpg", b"photos/2024/d.jpg",
            b"photos/to-file", b"to-folder/c.jpg", b"to-folder/d.jpg",
        }  # fmt: skip
        assert batch.skipped == 0
        assert not batch.rejected

    @pytest.mark.parametrize("follow", [False, True])
    @pytest.mark.parametrize("destination", ["nowhere", "a.txt/below-a-file", "dangling", "n" * 300])
    def test_dangling(self, tree: pathlib.Path, destination: str, follow: bool) -> None:
        (tree / "dangling").symlink_to(destination)
        batch = found(tree, follow_symlinks=follow)
        assert len(batch.uploads) == 4, "the others go on"
        error = reasons(batch)[b"dangling"]
        assert isinstance(error, NotRegularFile)
        assert destination in str(error)
        assert "remove or correct the link" in str(error)

    @pytest.mark.parametrize("destination", [".", "..", "../..", "../../photos"])
    def test_a_loop_is_found(self, tree: pathlib.Path, destination: str) -> None:
        (tree / "photos" / "2024" / "again").symlink_to(destination)
        batch = found(tree / "photos", follow_symlinks=True)
        assert names(batch) >= {b"b.jpg", b"2024/c.jpg", b"2024/d.jpg"}
        assert all(isinstance(error, NotRegularFile) for error in reasons(batch).values())
        assert any("holds itself" in str(error) for error in reasons(batch).values())

    def test_two_links_to_one_folder_are_no_loop(self, tree: pathlib.Path) -> None:
        (tree / "one").symlink_to("photos/2024")
        (tree / "two").symlink_to("photos/2024")
        batch = found(tree, follow_symlinks=True)
        assert names(batch) >= {b"one/c.jpg", b"two/c.jpg", b"photos/2024/c.jpg"}
        assert not batch.rejected

    @pytest.mark.parametrize("follow", [False, True])
    def test_a_link_to_a_fifo(self, tmp_path: pathlib.Path, follow: bool) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to("fifo")
        assert set(reasons(found(tmp_path, follow_symlinks=follow))) == {b"fifo"} | ({b"link"} if follow else set())


class TestOddities:
    """None of these may be opened: a FIFO would block for ever."""

    @pytest.mark.parametrize("follow", [False, True])
    def test_fifo_and_socket(self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch, follow: bool) -> None:
        monkeypatch.chdir(tree)  # a socket's path is short
        os.mkfifo("photos/fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("photos/socket")
        batch = found(tree, follow_symlinks=follow)
        assert len(batch.uploads) == 4
        assert reasons(batch).keys() == {b"photos/fifo", b"photos/socket"}
        assert all(isinstance(error, NotRegularFile) for error in reasons(batch).values())
        assert "FIFO" in str(reasons(batch)[b"photos/fifo"])
        assert "socket" in str(reasons(batch)[b"photos/socket"])

    def test_as_a_source(self, tmp_path: pathlib.Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        batch = found(tmp_path / "fifo", "/dev/null")
        assert reasons(batch).keys() == {b"fifo", b"null"}
        assert "device" in str(reasons(batch)[b"null"])


class TestSourcesThatAreMistakes:
    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("nowhere", "nowhere doesn't exist"),
            ("no/where", "nor does the folder no"),
            ("HTTPS://store.example/dav/", "HTTPS://store.example/dav/ is a URL, not a file: give it by --to"),
            ("", "empty"),
            ("a.txt/", "leave out the slash"),
            ("dangling", "symbolic link to gone"),
            ("round", "leads back to the link"),
            ("nul\0", "NUL"),
            ("n" * 300, "doesn't exist"),
            (b"\xff\n", r"\xff\n doesn't exist"),
        ],
    )
    def test_each_is_named_with_its_cure(
        self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
    ) -> None:
        monkeypatch.chdir(tree)
        os.symlink("gone", "dangling")
        os.symlink("round", "round")
        with pytest.raises(UsageError) as caught:
            walk(["a.txt", source])  # at the call, before any batch is asked for
        assert says in str(caught.value)
        assert ":" in str(caught.value), "a cure"

    @pytest.mark.parametrize("single", ["photos", b"photos", pathlib.Path("photos")])
    def test_a_single_source_without_a_list(self, single: Any) -> None:
        with pytest.raises(UsageError, match=r"\[source\]"):
            walk(single)

    def test_a_batch_of_nothing(self, tree: pathlib.Path) -> None:
        with pytest.raises(UsageError, match="at least 1"):
            walk([tree], batch=0)


class TestPermissions:
    @pytest.mark.parametrize("follow", [False, True])
    def test_an_unreadable_folder_fails_alone(
        self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch, follow: bool
    ) -> None:
        monkeypatch.chdir(tree)
        tree.chmod(0o755)
        (tree / "photos" / "2024").chmod(0o000)
        try:
            with unprivileged():
                batch = found(".", follow_symlinks=follow)
                direct = found("photos/2024")
        finally:
            (tree / "photos" / "2024").chmod(0o755)
        assert names(batch) == {b"a.txt", b"photos/b.jpg"}
        for rejected in (batch.rejected, direct.rejected):
            assert [r.file for r in rejected] == [b"./photos/2024" if rejected is batch.rejected else b"photos/2024"]
            assert isinstance(rejected[0].error, FileUnreadable)
            assert "Permission denied" in str(rejected[0].error)
            assert "right to read" in str(rejected[0].error)
        assert batch.rejected[0].name == b"photos/2024"

    def test_a_folder_that_may_be_listed_but_not_searched(
        self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tree)
        tree.chmod(0o755)
        os.symlink("b.jpg", "photos/link")
        os.mkfifo("photos/fifo")
        (tree / "photos").chmod(0o644)
        try:
            with unprivileged():
                batch = found(".")
        finally:
            (tree / "photos").chmod(0o755)
        # What is a file by the folder's own word is left to whoever opens it.
        assert names(batch) == {b"a.txt", b"photos/b.jpg"}
        assert {type(error) for error in reasons(batch).values()} == {FileUnreadable}
        assert b"photos/2024" in reasons(batch)

    def test_a_source_behind_a_closed_folder(self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tree)
        tree.chmod(0o755)
        (tree / "photos").chmod(0o000)
        try:
            with unprivileged():
                batch = found("photos/b.jpg", "a.txt")
        finally:
            (tree / "photos").chmod(0o755)
        assert names(batch) == {b"a.txt"}
        assert isinstance(reasons(batch)[b"photos/b.jpg"], FileUnreadable)


class TestTroubleWhileReading:
    @pytest.mark.parametrize(
        ("number", "kind", "says"),
        [
            (errno.EIO, FileUnreadable, "Input/output error"),
            (errno.ENOENT, FileVanished, "vanished"),
            (errno.EMFILE, FileUnreadable, "ulimit -n"),
        ],
    )
    def test_what_was_read_before_an_error_is_kept(
        self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type, says: str
    ) -> None:
        class BreakingOff(Listing):
            """One folder, whose reading breaks off behind its files."""

            def read(self, most: int, folders: int) -> Any:
                uploads, links, others, _, opened = super().read(most, 1)
                self.close()
                return uploads, links, others, [(os.fsencode(tree), number)], opened

        monkeypatch.setattr(sources, "Listing", BreakingOff)
        batch = found(tree)
        assert names(batch) == {b"a.txt"}
        assert [type(r.error) for r in batch.rejected] == [kind]
        assert says in str(batch.rejected[0].error)

    @pytest.mark.parametrize("follow", [False, True])
    def test_many_folders_that_can_not_be_opened(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, follow: bool
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for place in range(20):
            (tmp_path / str(place)).mkdir()
        tmp_path.chmod(0o755)
        for folder in tmp_path.iterdir():
            folder.chmod(0)
        try:
            with unprivileged():
                batches = list(walk(["."], batch=3, follow_symlinks=follow))
        finally:
            for folder in tmp_path.iterdir():
                folder.chmod(0o755)
        assert [len(batch.rejected) for batch in batches] == [3] * 6 + [2]

    def test_a_file_that_vanishes_before_its_size_is_read(
        self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(path: bytes) -> os.stat_result:
            raise FileNotFoundError(errno.ENOENT, "gone")

        monkeypatch.setattr(os, "lstat", gone)
        assert {u.size for u in found(tree / "photos", sizes=True).uploads} == {-1}


@pytest.fixture
def deep() -> Iterator[bytes]:
    """A folder for trees that Python's own rmtree, which recurses, can't remove."""
    root = tempfile.mkdtemp().encode()
    yield root
    subprocess.run(["rm", "-rf", "--", root], check=True)


def dig(root: bytes, names: Sequence[bytes], file: bytes) -> None:
    """Make nested folders with a file in each, step by step: the whole path may be longer than the system takes."""
    here = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.symlink(".", b"l" * 255, dir_fd=here)
    os.close(here)


class TestDepth:
    def test_deeper_than_python_recurses(self, deep: bytes) -> None:
        dig(deep, [b"d"] * 1500, b"f")
        batch = found(deep)
        assert len(batch.uploads) == batch.skipped == 1500
        assert max(len(u.name) for u in batch.uploads) == 2 * 1500 + 1
        assert not batch.rejected
        assert names(found(deep, follow_symlinks=True)) == names(batch)

    @pytest.mark.parametrize("follow", [False, True])
    @pytest.mark.parametrize("longest", [100, 255])
    def test_deeper_than_a_path_can_be_long(self, deep: bytes, longest: int, follow: bool) -> None:
        dig(deep, [b"d" * longest] * 50, b"f" * 255)
        batch = found(deep, follow_symlinks=follow)
        assert len(batch.uploads) >= 10
        for upload in batch.uploads:
            os.close(os.open(upload.file, os.O_RDONLY))
        assert batch.rejected, "what is deeper is named"
        for rejected in batch.rejected:
            if "holds itself" in str(rejected.error):
                assert follow
                continue
            assert isinstance(rejected.error, FileUnreadable)
            assert "(cd)" in str(rejected.error)
            with pytest.raises(OSError, match="File name too long"):
                os.close(os.open(rejected.file, os.O_RDONLY))


# --- any tree -------------------------------------------------------------------------------------

entry_names = st.binary(min_size=1, max_size=20).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")
).filter(lambda name: name not in (b".", b".."))  # fmt: skip
leaves = st.sampled_from(["file", "fifo", "dangling", "to-root", "to-sibling"])
trees = st.recursive(leaves, lambda below: st.dictionaries(entry_names, below, max_size=5), max_leaves=25)


def grow(root: bytes, tree: Any, links: Iterator[int], limit: int) -> None:
    """Make a tree on disk, with at most `limit` links to folders: their number of combinations explodes."""
    os.mkdir(root)
    if isinstance(tree, str):
        tree = {b"only": tree}
    for name, kind in tree.items():
        path = os.path.join(root, name)
        if isinstance(kind, dict):
            grow(path, kind, links, limit)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "dangling":
            os.symlink(b"\xff\xff\xff nowhere", path)
        elif kind == "file" or next(links) >= limit:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        else:
            os.symlink(b"." if kind == "to-root" else b"..", path)


@given(trees, st.integers(1, 9))
def test_finds_exactly_what_os_walk_finds(tree: Any, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder.encode(), b"root")
        grow(root, tree, itertools.count(), 3)
        files, others, links = set(), set(), 0
        for path, below, entries in os.walk(root):
            for name in below + entries:
                whole = os.path.join(path, name)
                relative = os.path.relpath(whole, root)
                if os.path.islink(whole) and os.path.exists(whole):
                    links += 1
                elif os.path.isfile(whole):
                    files.add(relative)
                elif not os.path.isdir(whole):
                    others.add(relative)
        batch = found(root, batch=limit)
        assert names(batch) == files
        assert reasons(batch).keys() == others
        assert batch.skipped == links
        assert all(upload.file == os.path.join(root, upload.name) for upload in batch.uploads)


@given(trees)
def test_following_links_always_ends_and_finds_no_less(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder.encode(), b"root")
        grow(root, tree, itertools.count(), 3)
        followed, plain = found(root, follow_symlinks=True), found(root)
        assert names(followed) >= names(plain)
        assert followed.skipped == 0
        assert all(os.path.isfile(upload.file) for upload in followed.uploads)


@given(st.binary())
def test_printable_shows_anything(name: bytes) -> None:
    assert printable(name).isprintable()
    printable(name).encode()


@pytest.mark.parametrize(
    ("name", "shown"), [(b"plain", "plain"), ("grün".encode(), "grün"), (b"a\nb\xff\x1b[m", r"a\nb\xff\x1b[m")]
)
def test_printable(name: bytes, shown: str) -> None:
    assert printable(name) == shown


def test_reprs_name_the_file() -> None:
    assert "name=b'a'" in repr(Upload(b"/x/a", b"a"))
    assert "name=b'a'" in repr(Rejected(b"a", b"/x/a", FileVanished("gone")))


def test_what_is_written_inside_a_source_is_refused(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    (folder / "file").write_text("x")
    inside = [folder / "journal", folder / "sub" / "journal", tmp_path / "link" / "journal", folder / "file"]
    for place in inside:
        with pytest.raises(UsageError, match="put it elsewhere"):
            check_place("--journal", str(place), [str(tmp_path / "other"), str(folder)])
    with pytest.raises(UsageError, match="put it elsewhere"):
        check_place("--journal", str(folder / "journal"), [str(tmp_path / "link")])
    check_place("--journal", str(tmp_path / "tree.journal"), [str(folder), str(folder / "file")])
    (tmp_path / "hard link").hardlink_to(folder / "file")
    with pytest.raises(UsageError, match="put it elsewhere"):
        check_place("--failures", str(tmp_path / "hard link"), [str(folder / "file")])
    check_place("--failures", os.devnull, ["/", "/dev"])  # a device is not uploaded
    check_place("--failures", str(tmp_path / "new"), [""])  # which is told of elsewhere


class TestSelection:
    """What is left out is neither looked at nor rejected."""

    def chosen(self, *exclude: str, include: tuple[str, ...] = ()) -> Selection:
        return Selection(rules(include, exclude))

    @pytest.mark.parametrize("follow", [False, True])
    def test_what_is_left_out_is_not_rejected(self, tree: pathlib.Path, follow: bool) -> None:
        os.mkfifo(tree / "photos" / "pipe.out")
        os.symlink("nowhere", tree / "photos" / "dangling.out")
        os.symlink("2024", tree / "photos" / "linked")
        batch = found(tree, follow_symlinks=follow, selection=self.chosen("*.out", "linked", "linked/"))
        assert names(batch) == {b"a.txt", b"photos/b.jpg", b"photos/2024/c.jpg", b"photos/2024/d.jpg"}
        assert batch.rejected == []
        assert batch.skipped == 0

    @pytest.mark.parametrize("follow", [False, True])
    def test_a_folder_of_which_nothing_is_taken_is_not_read(
        self, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch, follow: bool
    ) -> None:
        monkeypatch.chdir(tree)
        tree.chmod(0o755)
        (tree / "photos" / "2024").chmod(0o000)
        try:
            with unprivileged():
                batch = found(".", follow_symlinks=follow, selection=self.chosen("2024/"))
        finally:
            (tree / "photos" / "2024").chmod(0o755)
        assert names(batch) == {b"a.txt", b"photos/b.jpg"}
        assert batch.rejected == []

    def test_a_source_that_is_a_file_has_to_pass_as_well(self, tree: pathlib.Path) -> None:
        assert names(found(tree / "a.txt", selection=self.chosen("*.txt"))) == set()
        assert names(found(tree / "a.txt", selection=self.chosen("*.jpg"))) == {b"a.txt"}

    def test_a_source_that_is_a_folder_has_no_name_to_pass(self, tree: pathlib.Path) -> None:
        assert names(found(tree / "photos", selection=self.chosen("photos/", "2024/"))) == {b"b.jpg"}

    def test_sizes_are_looked_up_where_they_decide(self, tree: pathlib.Path) -> None:
        os.symlink("a.txt", tree / "link")
        one = Selection(max_size=len("a.txt"))
        assert names(found(tree, selection=one)) == {b"a.txt"}
        assert names(found(tree, selection=one, follow_symlinks=True)) == {b"a.txt", b"link"}

    def test_batches_stay_small_where_much_is_left_out(self, tmp_path: pathlib.Path) -> None:
        for number in range(300):
            (tmp_path / f"{number}.jpg").touch()
        sizes = [len(batch.uploads) for batch in walk([tmp_path], batch=100, selection=self.chosen("*[1-9].jpg"))]
        assert sum(sizes) == 30
        assert max(sizes) <= 100
