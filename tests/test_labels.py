"""_labels: the :path and the fields of many names, the same as one by one; and attempts made of uploads."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost._labels import Labels
from fastpost._listing import Upload
from fastpost._table import make_attempts
from fastpost.errors import UsageError
from fastpost.target import parse

#: Parts of names that come again, with all that matters in them: dots, escapes, octets that are no text.
PARTS = st.sampled_from(
    [b"a", b"b.txt", b"c.tar.gz", b".d", b"e.", b"v1.2", b"f g", b"\xff.png", b"h.gz", b"..i", b"j.TXT"]
)
NAMES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map(b"/".join) | st.binary(max_size=8), max_size=30)


#: What needs no escape in a path beside letters, digits and "-._~" (docs/decisions/0002).
PLAIN = "!$&'()*,=:@/"


def refused(name: bytes) -> UsageError | None:
    """Return why no URL can have a name."""
    parts = name.split(b"/")
    return UsageError(f"{name!r} can't be") if {b"", b".", b".."} & set(parts) else None


@given(NAMES, st.sampled_from(["http://h/", "http://h/d%20a/{path}?v=1", "http://h/{stem}.{ext}", "http://h/up"]))
def test_many_names_are_labelled_as_each_alone(names: list[bytes], to: str) -> None:
    uploads = [Upload(b"/root/" + name, name) for name in names]
    attempts, unfit = make_attempts(uploads, parse(to).labels)
    assert [one.upload for one in attempts] == [one for one in uploads if not refused(one.name)]
    assert [one.upload for one in unfit] == [one for one in uploads if refused(one.name)]
    for attempt in attempts:
        alone = parse(to)
        name = attempt.upload.name
        assert attempt.path == alone.request_path(name)
        assert attempt.request_fields == alone.fields(name)
    assert all(isinstance(one.failure, UsageError) for one in unfit)


@given(NAMES)
def test_paths_are_escaped_as_the_standard_library_has_it(names: list[bytes]) -> None:
    labels = parse("http://h/a/{path}?b").labels
    for name in names:
        if refused(name) is None:
            assert labels.request_path(name) == f"/a/{quote_from_bytes(name, safe=PLAIN)}?b".encode()


def test_an_attempt_has_what_its_upload_says() -> None:
    upload = Upload(b"/f/a.txt", b"a.txt", 7, "image/png", follow=False, due=5.5)
    (attempt,), unfit = make_attempts([upload], parse("http://h/").labels)
    assert (attempt.file, attempt.path, attempt.follow, attempt.began) == (b"/f/a.txt", b"/a.txt", False, 5.5)
    assert attempt.request_fields == ((b"content-type", b"image/png"),)
    assert (attempt.size, attempt.status, attempt.retried, attempt.content) == (-1, 0, 0, None)
    assert not unfit


def test_a_type_that_is_none_fails_alone() -> None:
    uploads = [Upload(b"a", b"a", content_type="no type"), Upload(b"b", b"b")]
    attempts, unfit = make_attempts(uploads, parse("http://h/").labels)
    assert [one.path for one in attempts] == [b"/b"]
    assert "media type" in str(unfit[0].failure)


def test_an_empty_type_is_the_targets_or_none() -> None:
    upload = Upload(b"a.txt", b"a.txt", content_type="")
    (attempt,), _ = make_attempts([upload], parse("http://h/", content_type="image/png").labels)
    assert attempt.request_fields == ((b"content-type", b"image/png"),)
    _, (unfit,) = make_attempts([upload], parse("http://h/").labels)
    assert "media type" in str(unfit.failure)


def test_an_upload_without_a_name_is_a_mistake() -> None:
    upload = Upload(b"a", b"a")
    upload.name = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="file and a name"):
        make_attempts([upload], parse("http://h/").labels)


def test_equal_suffixes_have_one_object() -> None:
    labels = parse("http://h/").labels
    first = labels.content_fields(b"a.txt")
    assert labels.content_fields(b"b.png") != first
    assert labels.content_fields(b"c/d.txt") is first


def test_only_uploads_become_attempts() -> None:
    with pytest.raises(TypeError):
        make_attempts([object()], parse("http://h/").labels)  # type: ignore[list-item]


def test_what_an_escape_raises_comes_out() -> None:
    def escape(base: bytes) -> bytes:
        raise ValueError("no")

    labels = Labels(
        fill=bytes, folders={}, before=b"/", after=b"", as_is=bytes(256), escape=escape,
        types={}, guess=lambda name: (), unknown=(), declare=lambda content_type: (),
    )  # fmt: skip
    with pytest.raises(ValueError, match="no"):
        labels.request_path(b"x")
    with pytest.raises(KeyError):
        labels.request_path(b"x/y")
    with pytest.raises(KeyError):
        labels.content_fields(b"x.y")
    assert labels.content_fields(b"x") == ()
