"""target: which URL each file gets, what is escaped in it, and what is said about a URL that can't be meant."""

from __future__ import annotations

import mimetypes
import os
import subprocess
import sys
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost.errors import UsageError
from fastpost.target import parse

#: RFC 3986's pchar and "/", less what some servers read as something else.
IN_PATH = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*,=:@/%")

parts = st.binary(min_size=1, max_size=30).filter(
    lambda part: b"/" not in part and b"\0" not in part and part not in (b".", b"..")
)
names = st.lists(parts, min_size=1, max_size=4).map(b"/".join)


def path_of(to: str, name: bytes = b"photos/2024/a b.tar.gz") -> str:
    return parse(to).request_path(name).decode("ascii")


def refusal(to: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(to)
    return str(caught.value)


class TestWhereAFileGoes:
    @pytest.mark.parametrize(
        ("to", "path"),
        [
            ("https://h/dav/", "/dav/photos/2024/a%20b.tar.gz"),
            ("https://h/", "/photos/2024/a%20b.tar.gz"),
            ("https://h", "/photos/2024/a%20b.tar.gz"),
            ("https://h/dav", "/dav"),
            ("https://h/up?to=/x/", "/up?to=/x/"),
            ("https://h/dav/?v=1", "/dav/photos/2024/a%20b.tar.gz?v=1"),
            ("https://h?v=1", "/photos/2024/a%20b.tar.gz?v=1"),
            ("https://h/{path}", "/photos/2024/a%20b.tar.gz"),
            ("https://h/v1/{path}/content", "/v1/photos/2024/a%20b.tar.gz/content"),
            ("https://h/{path}?v=1", "/photos/2024/a%20b.tar.gz?v=1"),
            ("https://h/{name}", "/a%20b.tar.gz"),
            ("https://h/{name}/", "/a%20b.tar.gz/"),
            ("https://h/{stem}", "/a%20b.tar"),
            ("https://h/{ext}/{stem}", "/gz/a%20b.tar"),
            ("https://h/{stem}.{ext}", "/a%20b.tar.gz"),
            ("https://h/x.{name}", "/x.a%20b.tar.gz"),
            ("https://h/${name}", "/$a%20b.tar.gz"),
            ("https://h/up?n={name}&p={path}", "/up?n=a%20b.tar.gz&p=photos/2024/a%20b.tar.gz"),
            ("https://h/up/?n={name}", "/up/?n=a%20b.tar.gz"),
            ("https://h/a/../b/", "/a/../b/photos/2024/a%20b.tar.gz"),
        ],
    )
    def test_template(self, to: str, path: str) -> None:
        assert path_of(to) == path

    @pytest.mark.parametrize(
        ("name", "stem", "ext"),
        [
            (b"a.jpg", "a", "jpg"),
            (b"v1.2/a.JPG", "a", "JPG"),
            (b"a.tar.gz", "a.tar", "gz"),
            (b"README", "README", ""),
            (b"v1.2/README", "README", ""),
            (b".bashrc", ".bashrc", ""),
            (b".config.json", ".config", "json"),
            (b"..a", "..a", ""),
            (b"...", "...", ""),
            (b"a.", "a.", ""),
            (b"a..b", "a.", "b"),
        ],
    )
    def test_stem_and_extension(self, name: bytes, stem: str, ext: str) -> None:
        assert path_of("https://h/{stem}", name) == f"/{stem}"
        assert path_of("https://h/x{ext}", name) == f"/x{ext}"

    @given(names)
    def test_stem_dot_ext_is_the_name(self, name: bytes) -> None:
        assert path_of("https://h/{stem}.{ext}", name) == path_of("https://h/{name}", name)
        assert path_of("https://h/?n={stem}.{ext}", name) == path_of("https://h/?n={name}", name)

    @pytest.mark.parametrize(
        ("to", "method", "unique", "shared"),
        [
            ("https://h/dav/", b"PUT", True, False),
            ("https://h", b"PUT", True, False),
            ("https://h/{path}", b"PUT", True, False),
            ("https://h/up?p={path}", b"PUT", True, False),
            ("https://h/{name}", b"PUT", False, False),
            ("https://h/{stem}", b"PUT", False, False),
            ("https://h/{path}{ext}", b"PUT", False, False),
            ("https://h/{ext}", b"POST", False, True),
            ("https://h/up", b"POST", False, True),
        ],
    )
    def test_whose_url_it_is(self, to: str, method: bytes, unique: bool, shared: bool) -> None:
        parsed = parse(to)
        assert (parsed.method, parsed.unique, parsed.shared) == (method, unique, shared)

    @given(names, names)
    @pytest.mark.parametrize("to", ["https://h/dav/", "https://h/a{path}b?{path}", "https://h/?p={path}"])
    def test_unique_means_unique(self, to: str, one: bytes, other: bytes) -> None:
        parsed = parse(to)
        assert parsed.unique
        assert (parsed.request_path(one) == parsed.request_path(other)) == (one == other)

    def test_url_is_for_messages(self) -> None:
        assert parse("http://H:8080/dav/").url(b"a b") == "http://h:8080/dav/a%20b"

    def test_a_target_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            parse("https://h/").port = 1  # type: ignore[misc]


class TestEscapes:
    @given(names)
    def test_a_name_comes_back_octet_for_octet(self, name: bytes) -> None:
        path = parse("https://h/dav/").request_path(name)
        assert urllib.parse.unquote_to_bytes(path) == b"/dav/" + name
        assert path == parse("https://h/dav/{path}").request_path(name)

    @given(names)
    def test_only_allowed_octets_are_sent(self, name: bytes) -> None:
        assert set(parse("https://h/dav/").request_path(name)) <= IN_PATH
        assert set(parse("https://h/{name}").request_path(name)) <= IN_PATH

    @given(names, names)
    def test_the_structure_of_the_path_stays(self, first: bytes, second: bytes) -> None:
        parsed = parse("https://h/dav/")
        for name in (first, second, first):  # the second time from what is kept
            path = parsed.request_path(name)
            assert path.count(b"/") == name.count(b"/") + 2
            assert [urllib.parse.unquote_to_bytes(part) for part in path.split(b"/")[2:]] == name.split(b"/")

    @given(names)
    def test_in_the_query_nothing_starts_another_parameter(self, name: bytes) -> None:
        query = path_of("https://h/up?x=1&p={path}&n={name}", name).partition("?")[2]
        values = urllib.parse.parse_qs(query, keep_blank_values=True, errors="surrogateescape", separator="&")
        assert {key: os.fsencode(value[0]) for key, value in values.items()} == {
            "x": b"1", "p": name, "n": name.rpartition(b"/")[2],
        }  # fmt: skip

    @pytest.mark.parametrize("octet", [o for o in range(256) if o not in IN_PATH or o == ord("%")])
    def test_each_other_octet_is_escaped(self, octet: int) -> None:
        name = b"a" + bytes([octet]) + b"b"
        assert parse("https://h/").request_path(name) == b"/a%%%02Xb" % octet
        assert parse("https://h/").request_path(name + b"/c") == b"/a%%%02Xb/c" % octet

    def test_a_dotfile_is_not_touched(self) -> None:
        assert path_of("https://h/", b".git/.config") == "/.git/.config"

    def test_a_template_may_be_written_as_people_read_it(self) -> None:
        assert path_of("https://h/grün/%20+;@[|]/", b"a") == "/gr%C3%BCn/%20+;@%5B%7C%5D/a"
        assert path_of("https://h/up?q=ü|?/&n={name}", b"a") == "/up?q=%C3%BC%7C?/&n=a"
        assert path_of("https://h/\udcff/", b"a") == "/%FF/a"

    @pytest.mark.parametrize(
        "name", [b"", b".", b"..", b"/", b"/a", b"a/", b"a//b", b"./a", b"a/./b", b"../a", b"a/.."]
    )
    @pytest.mark.parametrize("to", ["https://h/dav/", "https://h/{name}", "https://h/up?p={path}", "https://h/up"])
    def test_names_that_lead_elsewhere_are_refused(self, to: str, name: bytes) -> None:
        parsed = parse(to)
        for _ in range(2):
            with pytest.raises(UsageError, match="relative"):
                parsed.request_path(name)

    def test_what_is_kept_is_bounded(self) -> None:
        parsed = parse("https://h/")
        for number in range(3000):
            assert parsed.request_path(b"%d/ /a" % number) == b"/%d/%%20/a" % number
            parsed.fields(b"a.%d" % (number + 10_000))
        assert parsed.labels.folders is not None
        assert len(parsed.labels.folders) <= 1024
        assert len(parsed.labels.types) <= 4096


class TestAuthority:
    @pytest.mark.parametrize(
        ("to", "scheme", "host", "port", "authority"),
        [
            ("https://store.example/", "https", "store.example", 443, b"store.example"),
            ("https://store.example:443/", "https", "store.example", 443, b"store.example"),
            ("https://store.example:/", "https", "store.example", 443, b"store.example"),
            ("https://store.example:80/", "https", "store.example", 80, b"store.example:80"),
            ("http://store.example/", "http", "store.example", 80, b"store.example"),
            ("http://store.example:0080/", "http", "store.example", 80, b"store.example"),
            ("HTTP://Store.Example:8080/", "http", "store.example", 8080, b"store.example:8080"),
            ("http://localhost:65535/", "http", "localhost", 65535, b"localhost:65535"),
            ("http://127.0.0.1:8080/", "http", "127.0.0.1", 8080, b"127.0.0.1:8080"),
            ("http://[::1]:8080/", "http", "::1", 8080, b"[::1]:8080"),
            ("https://[2001:DB8:0:0::1]/", "https", "2001:db8::1", 443, b"[2001:db8::1]"),
            ("http://[fe80::1%25eth0]/", "http", "fe80::1%eth0", 80, b"[fe80::1]"),
            ("http://[fe80::1%eth0]:81/", "http", "fe80::1%eth0", 81, b"[fe80::1]:81"),
            ("https://bücher.example/", "https", "xn--bcher-kva.example", 443, b"xn--bcher-kva.example"),
            ("https://BÜCHER.example/", "https", "xn--bcher-kva.example", 443, b"xn--bcher-kva.example"),
            ("https://例え。テスト/", "https", "xn--r8jz45g.xn--zckzah", 443, b"xn--r8jz45g.xn--zckzah"),
            ("http://my_service/", "http", "my_service", 80, b"my_service"),
            ("https://store.example./", "https", "store.example.", 443, b"store.example."),
        ],
    )
    def test_parsed(self, to: str, scheme: str, host: str, port: int, authority: bytes) -> None:
        parsed = parse(to)
        assert (parsed.scheme, parsed.host, parsed.port, parsed.authority) == (scheme, host, port, authority)
        assert parsed.address == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


class TestMistakes:
    @pytest.mark.parametrize(
        ("to", "says"),
        [
            ("", "empty"),
            ("store.example/dav", "no scheme: did you mean 'https://store.example/dav'"),
            ("store.example:8443/dav/", "did you mean 'https://store.example:8443/dav/'"),
            ("localhost:8080/dav/", "did you mean 'http://localhost:8080/dav/'"),
            ("127.0.0.1/dav/", "did you mean 'http://127.0.0.1/dav/'"),
            ("[::1]:8080/", "did you mean 'http://[::1]:8080/'"),
            (":8080/", "did you mean 'http://localhost:8080/'"),
            ("//store.example/dav/", "did you mean 'https://store.example/dav/'"),
            ("https:/store.example/", "did you mean 'https://store.example/'"),
            ("http:store.example/", "did you mean 'http://store.example/'"),
            ("/backup/photos", "a path on this machine"),
            ("./backup", "a path on this machine"),
            ("~/backup", "a path on this machine"),
            ("ftp://store.example/", "ftp://"),
            ("s3://bucket/", "https:// and http:// only"),
            ("file:///backup", "https:// and http:// only"),
            ("https://", "no host"),
            ("https:///dav/", "no host"),
            ("https://:8443/dav/", "no host"),
            ("https://?x", "no host"),
            ("https://store.example:http/", "port"),
            ("https://store.example:0/", "port"),
            ("https://store.example:65536/", "port"),
            ("https://store.example:-1/", "port"),
            ("https://store.example:\uff18\uff10/", "port"),
            (f"https://store.example:{'9' * 5000}/", "port"),
            ("https://::1/", "brackets"),
            ("https://[::1/", "can't be read"),
            ("https://[::1]x/", "can't be read"),
            ("https://[store.example]/", "IPv6 address"),
            ("https://[]/", "IPv6 address"),
            ("https://store..example/", "host name"),
            ("https://-store.example/", "host name"),
            ("https://st%6Fre.example/", "host name"),
            ("https://st!re.example/", "host name"),
            ("https://.../", "host name"),
            (f"https://{'a' * 64}.example/", "63"),
            (f"https://{'a.' * 130}example/", "host name"),
            ("https://straße.example/", "xn--"),
            ("https://ü..example/", "xn--"),
            ("https://☃\u200d.example/", "U+200D"),
            ("https://\udcff.example/", "xn--"),
            (f"https://{'ü' * 64}.example/", "xn--"),
            ("https://store.example/my photos/", "%20"),
            (" https://store.example/", "space"),
            ("https://store.example/ ", "space"),
            ("https://store.example/\n", "U+000A"),
            ("https://store.example/\tx", "U+0009"),
            ("https://store.example/\0", "U+0000"),
            ("https://store.example/\x7f", "U+007F"),
            ("https://store.example/\x1b[2J", "U+001B"),
            ("https://store.example/\u202egpj.", "U+202E"),
            ("https://store.example/#top", "fragment"),
            ("https://store.example/#", "%23"),
            ("https://store.example/{file}", "unknown placeholder {file}"),
            ("https://store.example/{file}", "{path}, {name}, {stem} and {ext}"),
            ("https://store.example/{Name}", "unknown placeholder {Name}"),
            ("https://store.example/{}", "unknown placeholder {}"),
            ("https://store.example/?x={y}", "unknown placeholder {y}"),
            ("https://store.example/{name", "%7B"),
            ("https://store.example/name}", "%7D"),
            ("https://store.example/{{name}}", "brace"),
            ("https://store.example/{na/me}", "placeholder"),
            ("https://{name}.example/", "host"),
            ("https://store.example/100%/", "%25"),
            ("https://store.example/?q=%zz", "%25"),
        ],
    )
    def test_each_has_a_message_with_the_cure(self, to: str, says: str) -> None:
        message = refusal(to)
        assert says in message
        assert message.isprintable(), "nothing that a terminal would obey"
        message.encode()

    @pytest.mark.parametrize(
        "to",
        [
            "https://ann:PASSWORD@store.example/dav/",
            "https://ann:PASSWORD@store.example:99999/dav/",
            "https://PASSWORD@store.example/dav/",
            "https://ann:PASSWORD@/dav/",
            "https://ann:PASSWORD@[::1/",
            "https://ann:@PASSWORD@store.example/",
            "https://ann:12/PASSWORD@x y/",
            "https://ann:PASSWORD/2@store.example/",
            "https://ann:PASSWORD?2@store.example/",
            "https://ann:PASSWORD#2@store.example/",
            "https://ann:PASS WORD@store.example/",
            "https://ann:PASSWORD@store.example/my photos/",
            "https://ann:PASSWORD@store.example/\n",
            "https://ann:PASSWORD@store.example/{x}",
            "https://ann:{PASSWORD}@store.example/",
            "ftp://ann:PASSWORD@store.example/",
            "ann:PASSWORD@store.example/dav/",
            "//ann:PASSWORD@store.example/",
            "https:/ann:PASSWORD@store.example/",
            "https:ann:PASSWORD@store.example/",
            "https://ann:PASSWORD@ü..example/",
            "https://store.example/100%?token=PASSWORD",
        ],
    )
    def test_a_password_is_never_repeated(self, to: str) -> None:
        message = refusal(to)
        assert "PASS" not in message
        assert "WORD" not in message

    def test_an_at_sign_in_the_path_is_no_userinfo(self) -> None:
        parsed = parse("http://h:8080/@ann/")
        assert parsed.url(b"a") == "http://h:8080/@ann/a"
        assert parsed.template == "http://h:8080/@ann/"

    @pytest.mark.parametrize("to", ["https://ann:secret@h/", "http://ann@h/", "https://@h/"])
    def test_userinfo_has_a_cure(self, to: str) -> None:
        assert "give them by -u @FILE" in refusal(to)

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("sv=2024&sig=SECRET&x=1", "sv=2024&sig=***&x=1"),
            ("X-Amz-Signature=SECRET", "X-Amz-Signature=***"),
            ("access_token=SECRET&n={name}", "access_token=***&n=a.txt"),
            ("key={path}", "key=a.txt"),
            ("pwd=SECRET&code=SECRET&jwt=SECRET&by=me", "pwd=***&code=***&jwt=***&by=me"),
            ("si%67=SECRET;session=SECRET", "si%67=***;session=***"),
        ],
    )
    def test_secrets_in_the_query_are_sent_and_not_shown(self, query: str, shown: str) -> None:
        parsed = parse(f"https://h/up?{query}")
        assert parsed.request_path(b"a.txt").decode() == f"/up?{query}".format(name="a.txt", path="a.txt")
        assert parsed.url(b"a.txt") == f"https://h/up?{shown}"
        assert "SECRET" not in parsed.template
        assert "SECRET" not in repr(parsed)

    @given(st.text())
    def test_any_text_is_a_target_or_a_mistake(self, text: str) -> None:
        for to in (text, f"https://{text}", f"https://h/{text}"):
            try:
                parsed = parse(to)
            except UsageError as error:
                message = str(error)
            else:
                message = parsed.template
                assert parsed.request_path(b"a").startswith(b"/")
                assert set(parsed.request_path(b"a")) <= IN_PATH | frozenset(b"+;?")
            message.encode()


class TestMethod:
    @pytest.mark.parametrize(("to", "default"), [("https://h/", b"PUT"), ("https://h/up", b"POST")])
    def test_default(self, to: str, default: bytes) -> None:
        assert parse(to).method == default
        assert parse(to, method="PATCH").method == b"PATCH"

    def test_case(self) -> None:
        assert parse("https://h/", method="put").method == b"PUT"
        assert parse("https://h/", method="Custom").method == b"Custom"

    @pytest.mark.parametrize("method", ["GET", "head", "CONNECT", "TRACE", "", "PU T", "PUT\n", "PÜT"])
    def test_refused(self, method: str) -> None:
        with pytest.raises(UsageError, match="PUT, POST or PATCH"):
            parse("https://h/", method=method)


def labels(name: bytes, content_type: str | None = None) -> tuple[str, str | None]:
    fields = {key.decode(): value.decode() for key, value in parse("https://h/").fields(name, content_type)}
    coding = fields.pop("content-encoding", None)
    assert list(fields) == ["content-type"]
    return fields["content-type"], coding


class TestFields:
    @pytest.mark.parametrize(
        ("name", "content_type", "coding"),
        [
            (b"a.jpg", "image/jpeg", None),
            (b"a.JPG", "image/jpeg", None),
            (b"x/y.z/a.jpeg", "image/jpeg", None),
            (b"a.md", "text/markdown", None),
            (b"a.js", "text/javascript", None),
            (b"a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", None),
            (b"a.tar.gz", "application/x-tar", "gzip"),
            (b"a.TAR.GZ", "application/x-tar", "gzip"),
            (b"a.tgz", "application/x-tar", "gzip"),
            (b"a.svgz", "image/svg+xml", "gzip"),
            (b"a.txt.gz", "text/plain", "gzip"),
            (b"a.txt.Z", "text/plain", "compress"),
            (b"a.css.br", "text/css", "br"),
            (b"a.json.zst", "application/json", "zstd"),
            (b"a.gz", "application/gzip", None),
            (b"a.zst", "application/zstd", None),
            (b"a.unheard-of.gz", "application/gzip", None),
            (b"a.gz.gz", "application/gzip", None),
            (b"a.tgz.gz", "application/gzip", None),
            (b"a.jpg/b.gz", "application/gzip", None),
            (b".jpg.gz", "application/gzip", None),
            (b"a.tar.bz2", "application/x-bzip2", None),
            (b"a.tbz2", "application/x-bzip2", None),
            (b"a.bz2", "application/x-bzip2", None),
            (b"a.tar.xz", "application/x-xz", None),
            (b"a.xz", "application/x-xz", None),
            (b"README", "application/octet-stream", None),
            (b"a.jpg/README", "application/octet-stream", None),
            (b".jpg", "application/octet-stream", None),
            (b"x/.gz", "application/octet-stream", None),
            (b".bashrc", "application/octet-stream", None),
            (b"a.", "application/octet-stream", None),
            (b"a.unheard-of", "application/octet-stream", None),
            (b"a.\xff\xfe", "application/octet-stream", None),
            (b"a.j\npg", "application/octet-stream", None),
            (b"a.z", "application/octet-stream", None),
            (b"", "application/octet-stream", None),
        ],
    )
    def test_guessed(self, name: bytes, content_type: str, coding: str | None) -> None:
        assert labels(name) == (content_type, coding)

    @given(
        st.lists(
            st.sampled_from([b"a.jpg", b".jpg", b"..jpg", b"d.jpg/x", b"a.tar.gz", b"a.gz", b".gz", b"gz", b"jpg"])
        )
    )
    def test_the_order_of_names_does_not_matter(self, given_names: list[bytes]) -> None:
        parsed = parse("https://h/")
        for name in given_names:
            assert parsed.fields(name) == parse("https://h/").fields(name)

    @given(names)
    def test_any_name_has_a_type(self, name: bytes) -> None:
        content_type, coding = labels(name)
        assert "/" in content_type
        assert coding in (None, "gzip", "compress", "br", "zstd")

    @pytest.mark.parametrize(
        ("one", "other"),
        [(b"a.jpg", b"x/b.jpg"), (b"a.tar.gz", b"b.tar.gz"), (b"README", b"a.unknown"), (b"a.gz", b"b.gz")],
    )
    def test_one_suffix_one_object(self, one: bytes, other: bytes) -> None:
        parsed = parse("https://h/")
        assert parsed.fields(one) is parsed.fields(other)

    def test_given_for_all(self) -> None:
        parsed = parse("https://h/", content_type="text/plain; charset=utf-8")
        assert parsed.fields(b"a.tar.gz") == ((b"content-type", b"text/plain; charset=utf-8"),)
        assert parsed.fields(b"a.tar.gz") is parsed.fields(b"b")

    def test_given_for_one(self) -> None:
        assert labels(b"a.tar.gz", "application/x-thing") == ("application/x-thing", None)
        parsed = parse("https://h/", content_type="text/plain")
        assert parsed.fields(b"a", "image/png") == ((b"content-type", b"image/png"),)

    @pytest.mark.parametrize(
        "content_type",
        ["", "text", "text/", "/plain", "text/plain\r\nx: y", "text/plain\n", "te xt/x", "text/plän", "text/plain;"],
    )
    def test_what_is_no_media_type(self, content_type: str) -> None:
        with pytest.raises(UsageError, match="write it like image/png"):
            parse("https://h/", content_type=content_type)
        with pytest.raises(UsageError, match="write it like image/png"):
            parse("https://h/").fields(b"a", content_type)

    def test_the_system_has_no_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mimetypes, "_db", None)
        monkeypatch.setattr(mimetypes, "types_map", dict(mimetypes.types_map))
        mimetypes.add_type("text/x-local-taste", ".unheard-of")
        assert labels(b"a.unheard-of") == ("application/octet-stream", None)

    def test_what_python_knows_is_known(self) -> None:
        """Ours are the registered types, where Python 3.11 has older ones; later versions may know some more."""
        known = mimetypes.MimeTypes(filenames=())
        theirs = {**known.types_map[False], **known.types_map[True]}
        codings = {".gz", ".Z", ".br", ".zst", ".svgz", ".taz", ".tgz", ".tz"}
        ours = {suffix: labels(f"a{suffix}".encode())[0] for suffix in theirs.keys() - codings}
        other = {suffix for suffix, media_type in ours.items() if media_type != theirs[suffix]}
        if sys.version_info < (3, 12):
            assert other == {".js", ".mjs", ".opus", ".wav"}
        assert labels(b"a.mpeg") == ("video/mpeg", None)

    @pytest.mark.parametrize("module", ["mimetypes", "ipaddress", "encodings.idna"])
    def test_common_uploads_load_little(self, module: str) -> None:
        script = (
            "import sys, fastpost.target\n"
            "parsed = fastpost.target.parse('https://store.example/dav/')\n"
            "parsed.request_path(b'a b.jpg'), parsed.fields(b'a b.jpg'), parsed.fields(b'a.rare')\n"
            f"sys.exit({module!r} in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("location", "origin", "path"),
    [
        ("moved/c", "https://store.example", b"/a/moved/c"),
        ("/x", "https://store.example", b"/x"),
        ("?q=1", "https://store.example", b"/a/b?q=1"),
        ("../../../x", "https://store.example", b"/x"),
        ("", "https://store.example", b"/a/b"),
        ("#fragment", "https://store.example", b"/a/b"),
        ("https://store.example", "https://store.example", b"/"),
        ("HTTPS://Store.Example:443/x%20y?z", "https://store.example", b"/x%20y?z"),
        ("//store.example/x", "https://store.example", b"/x"),
        ("https://store.example:8443/x", "https://store.example:8443", b"/x"),
        ("https://other.example/x", "https://other.example", b"/x"),
        ("https://store.example.other/x", "https://store.example.other", b"/x"),
        ("//other.example/x", "https://other.example", b"/x"),
        ("https://[2001:DB8::1]:443/x", "https://[2001:db8::1]", b"/x"),
    ],
)
def test_where_a_redirect_leads(location: str, origin: str, path: bytes) -> None:
    assert parse("https://store.example/a/{path}").redirected(b"/a/b", location) == (origin, path)


@pytest.mark.parametrize(
    "location",
    [
        "http://store.example/x",  # what was sealed would be open
        "https://store.example@other.example/",
        "https://me:secret@store.example/",
        "https://[::1",
        "https://store.example:port/",
        "https://a{path}.example/",
        "mailto:me@store.example",
        "/two words",
        "/\xe9",
    ],
)
def test_where_no_redirect_leads(location: str) -> None:
    assert parse("https://store.example/a/{path}").redirected(b"/a/b", location) is None


def test_a_redirect_may_lead_from_http_to_https() -> None:
    led = parse("http://store.example:8080/{path}").redirected(b"/b", "https://store.example/b")
    assert led == ("https://store.example", b"/b")
