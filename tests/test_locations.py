"""Addresses taken apart, mirrors in their place, and a folder in the cache that nothing leaves."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emcatalog.errors import CatalogError
from emcatalog.locations import Location, apply_mirrors, parse_location

quick = settings(max_examples=300, deadline=None)

parts = st.text(min_size=1).map(lambda text: text.replace("/", "")).filter(bool)
nasty = st.sampled_from(
    ["..", ".", "...", "%2E%2E", "%2e", "..%2F", "\\..\\", "a b", "é", "~", "\n", "\0", "con", ".git"]
)
paths = st.lists(parts | nasty, min_size=1, max_size=5).map("/".join)
schemes = st.sampled_from(["gs", "s3", "https", "http"])


class TestParse:
    """``form://scheme://host/path``."""

    @pytest.mark.parametrize(
        ("text", "url", "folder"),
        [
            ("precomputed://gs://bucket/em/clahe", "gs://bucket/em/clahe", "gs/bucket/em/clahe"),
            ("precomputed://gs://bucket/em/", "gs://bucket/em", "gs/bucket/em"),
            ("precomputed://s3://bucket", "s3://bucket", "s3/bucket"),
            ("precomputed://http://host:80/a", "http://host:80/a", "http/host%3A80/a"),
            ("precomputed://https://host/a?b=c", "https://host/a?b=c", "https/host/a%3Fb=c"),
            ("precomputed://file:///data/a b", "file:///data/a b", "file/data/a b"),
            ("precomputed://demo://tissue/em", "demo://tissue/em", "demo/tissue/em"),
            ("precomputed://gs://bucket/.hidden/a..b", "gs://bucket/.hidden/a..b", "gs/bucket/%2Ehidden/a..b"),
        ],
    )
    def test_addresses(self, text: str, url: str, folder: str) -> None:
        location = parse_location(text)
        assert (location.format, location.url, location.folder) == ("precomputed", url, folder)
        assert str(location) == text.rstrip("/")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "starts with a stored form"),
            ("gs://bucket/em", "starts with a stored form"),
            ("precomputed://bucket/em", "starts with a stored form"),
            ("precomputd://gs://bucket/em", "Did you mean 'precomputed'"),
            ("hdf5://gs://bucket/em", "starts with a stored form"),
            ("precomputed://ftp://host/em", "ftp:// is not among gs, s3, https, http, file, demo"),
            ("precomputed://htps://host/em", "Did you mean 'https'"),
            ("precomputed://gs://bucket/../em", r"no part '\.\.'"),
            ("precomputed://gs://bucket/a/..", r"no part '\.\.'"),
            ("precomputed://gs://..", r"no part '\.\.'"),
            ("precomputed://gs://bucket/./em", r"no part '\.'"),
            ("precomputed://gs://bucket//em", "no part ''"),
            ("precomputed://gs:///em", "no part ''"),
            ("precomputed://gs://", "a host or bucket, and no part ''"),
            ("precomputed://file://data/em", "the whole path"),
            ("precomputed://file:///", "the whole path"),
            ("precomputed://file:///a/../b", r"no part '\.\.'"),
        ],
    )
    def test_mistakes(self, text: str, says: str) -> None:
        with pytest.raises(CatalogError, match=says) as caught:
            parse_location(text)
        assert repr(text) in str(caught.value)
        assert isinstance(caught.value, ValueError)


class TestFolder:
    """Where the mirror of a volume lies below the cache, whatever its address says."""

    @quick
    @given(st.sampled_from(["gs", "s3", "https", "http", "file"]), st.text() | paths, st.none() | st.text(min_size=1))
    def test_never_leaves_the_cache_nor_hides_in_it(self, scheme: str, path: str, endpoint: str | None) -> None:
        folder = Location("precomputed", f"{scheme}://{path}", endpoint).folder
        assert folder.split("/")[0].split("+")[0] == scheme
        for part in folder.split("/"):
            assert part
            assert not part.startswith(".")
            assert not set(part) & set('\\\0\n:*?"<>|')
            assert part.isascii()

    @quick
    @given(schemes, paths, schemes, paths, st.none() | parts, st.none() | parts)
    def test_two_addresses_have_two_folders(
        self, one: str, a: str, other: str, b: str, here: str | None, there: str | None
    ) -> None:
        first, second = Location("precomputed", f"{one}://{a}", here), Location("precomputed", f"{other}://{b}", there)
        assume(first != second)
        assert first.folder != second.folder

    @quick
    @given(schemes, paths)
    def test_a_person_can_read_the_address_from_it(self, scheme: str, path: str) -> None:
        assert unquote(Location("precomputed", f"{scheme}://{path}").folder) == f"{scheme}/{path}"

    def test_a_server_of_its_own_has_a_folder_of_its_own(self) -> None:
        folders = {
            endpoint: Location("precomputed", "s3://bucket/em", endpoint).folder
            for endpoint in (None, "https://minio.local", "https://minio.local:9000", "http://minio.local")
        }
        assert folders[None] == "s3/bucket/em"
        assert folders["https://minio.local"] == "s3+minio.local/bucket/em"
        assert len(set(folders.values())) == 4


class TestMirrors:
    """URL prefix -> URL prefix."""

    @pytest.mark.parametrize(
        ("url", "mirrors", "read"),
        [
            ("gs://bucket/em/a", {}, "gs://bucket/em/a"),
            ("gs://bucket/em/a", {"gs://other": "http://h"}, "gs://bucket/em/a"),
            ("gs://bucket/em/a", {"gs://bucket": "http://h/x"}, "http://h/x/em/a"),
            ("gs://bucket/em/a", {"gs://bucket/em/a": "http://h/x"}, "http://h/x"),
            ("gs://bucket", {"gs://bucket/": "http://h/x/"}, "http://h/x"),
            ("gs://bucket/em/a", {"gs://bucket/": "http://h/x"}, "http://h/x/em/a"),
            ("gs://bucket/em/a", {"gs://bucket": "http://h/x/"}, "http://h/x/em/a"),
            ("gs://bucket/em/a", {"gs://bucket//": "http://h/x//"}, "http://h/x/em/a"),
            ("gs://bucket/em/a", {"gs://buck": "http://h"}, "gs://bucket/em/a"),
            ("gs://bucket/em/a", {"gs://bucket/e": "http://h"}, "gs://bucket/em/a"),
            ("gs://bucket/em/a", {"gs://bucket/em/a/b": "http://h"}, "gs://bucket/em/a"),
            ("gs://bucket/em/a", {"gs://": "http://h/buckets"}, "http://h/buckets/bucket/em/a"),
            ("gs://bucket/em/a", {"gs://": "s3://"}, "s3://bucket/em/a"),
            ("gs://bucket/em/a", {"gs://bucket": "file:///"}, "file:///em/a"),
            ("gs://bucket/em/a", {"gs://bucket": "file:///data/"}, "file:///data/em/a"),
            ("gs://bucket/em/a", {"s3://bucket": "http://h"}, "gs://bucket/em/a"),
        ],
    )
    def test_prefixes(self, url: str, mirrors: dict[str, str], read: str) -> None:
        assert apply_mirrors(url, mirrors) == read

    @pytest.mark.parametrize("turn", [1, -1])
    def test_the_longest_prefix_wins(self, turn: int) -> None:
        table = {"gs://": "http://a", "gs://b": "http://b", "gs://b/em/": "http://c", "gs://b/em/x/y": "http://d"}
        mirrors = dict(list(table.items())[::turn])
        assert apply_mirrors("gs://b/em/x", mirrors) == "http://c/x"
        assert apply_mirrors("gs://b/seg", mirrors) == "http://b/seg"
        assert apply_mirrors("gs://bb/seg", mirrors) == "http://a/bb/seg"

    def test_a_mirror_is_not_mirrored_again(self) -> None:
        assert apply_mirrors("gs://a/x", {"gs://a": "gs://b", "gs://b": "gs://c"}) == "gs://b/x"

    @quick
    @given(schemes, st.lists(parts, min_size=1, max_size=4), st.lists(parts, max_size=3))
    def test_what_follows_the_prefix_is_kept(self, scheme: str, prefix: list[str], rest: list[str]) -> None:
        url = f"{scheme}://{'/'.join([*prefix, *rest])}"
        read = apply_mirrors(url, {f"{scheme}://{'/'.join(prefix)}": "http://h/x"})
        assert read == "/".join(["http://h/x", *rest])
