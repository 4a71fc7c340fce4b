"""Addresses taken apart, mirrors in their place, and a folder in the cache that nothing leaves."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emcatalog.errors import CatalogError
from emcatalog.locations import FORMATS, STACKS, Location, apply_mirrors, parse_location

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

    @pytest.mark.parametrize("form", FORMATS)
    def test_every_form(self, form: str) -> None:
        text = f"{form}://gs://bucket/em{'/{z}.x' if form in STACKS else ''}"
        location = parse_location(text)
        assert (location.format, location.url, str(location)) == (form, text.removeprefix(f"{form}://"), text)
        assert (location.axes, location.endpoint) == ("xyz", None)

    @pytest.mark.parametrize("form", ["n5", "zarr"])
    def test_the_bucket_itself(self, form: str) -> None:
        location = parse_location(f"{form}://gs://bucket/")
        assert (location.url, location.base, location.folder) == ("gs://bucket", "gs://bucket", f"gs/bucket@{form}")


class TestStacks:
    """``tiff://https://host/slice_{z:03d}.tif``: one file a slice."""

    @pytest.mark.parametrize(
        ("url", "base", "first", "later"),
        [
            ("https://h/a_{z:03d}.tif", "https://h", "a_007.tif", "a_1234.tif"),
            ("https://h/deep/er/{z}", "https://h/deep/er", "7", "1234"),
            ("https://h/{z:04d}/x.png", "https://h", "0007/x.png", "1234/x.png"),
            ("https://h/a/s_{z:02d}_b/x.png", "https://h/a", "s_07_b/x.png", "s_1234_b/x.png"),
            ("file:///data/{z}.tif", "file:///data", "7.tif", "1234.tif"),
            ("s3://bucket/a b/{z:5d}.tif", "s3://bucket/a b", "    7.tif", " 1234.tif"),
        ],
    )
    def test_names_of_slices(self, url: str, base: str, first: str, later: str) -> None:
        for form in STACKS:
            location = parse_location(f"{form}://{url}")
            assert location.base == base
            assert [location.slice_name(z) for z in (7, 1234)] == [first, later]
            assert url.startswith(f"{base}/")

    def test_the_base_of_what_is_no_stack_is_its_url(self) -> None:
        assert parse_location("precomputed://gs://bucket/em/{z}").base == "gs://bucket/em/{z}"

    @quick
    @given(st.integers(0, 10**6), st.integers(1, 9))
    def test_every_slice_has_a_name_of_its_own_below_the_base(self, z: int, digits: int) -> None:
        location = parse_location(f"tiff://https://h/x/s{{z:0{digits}d}}.tif")
        assert location.slice_name(z) == f"s{str(z).zfill(digits)}.tif"

    @pytest.mark.parametrize(
        "name",
        [
            "slice.tif", "{z}{z}.tif", "{z}/{z:03d}.tif", "{}.tif", "{0}.tif", "{y}.tif", "{Z}.tif", "{z:}.tif",
            "{z:03}.tif", "{z:x}.tif", "{z:03x}.tif", "{z:+03d}.tif", "{z:-3d}.tif", "{z:.3f}.tif", "{z:,d}.tif",
            "{z!r}.tif", "{z.real}.tif", "{z[0]}.tif", "{z.__class__}.tif", "{{z}}.tif", "{ z }.tif", "{z:03d }.tif",
            "{z:{z}d}.tif", "{z", "z}",
        ],
    )  # fmt: skip
    def test_mistakes(self, name: str) -> None:
        for form in STACKS:
            with pytest.raises(CatalogError, match=r"a stack names its slices with one \{z\}, as in"):
                parse_location(f"{form}://https://host/{name}")

    @pytest.mark.parametrize("name", ["a}_{z}.tif", "a_{z}{.tif", "{z:09999999999999999999d}.tif", "{z}}.tif"])
    def test_what_could_fail_later(self, name: str) -> None:
        with pytest.raises(CatalogError):
            parse_location(f"tiff://https://host/{name}")

    def test_the_host_is_the_same_for_all_slices(self) -> None:
        with pytest.raises(CatalogError):
            parse_location("tiff://https://{z}/a.tif")


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

    @pytest.mark.parametrize(
        ("form", "url", "folder"),
        [
            ("n5", "gs://bucket/em/s0", "gs/bucket/em/s0@n5"),
            ("zarr", "s3://bucket/crop_0.zarr/raw", "s3/bucket/crop_0.zarr/raw@zarr"),
            ("tiff", "https://h/a/raw_{z:03d}.tif", "https/h/a/raw_{z%3A03d}.tif@tiff"),
            ("png", "https://h/a/{z}.png", "https/h/a/{z}.png@png"),
        ],
    )
    def test_of_other_forms(self, form: str, url: str, folder: str) -> None:
        assert Location(form, url).folder == folder

    def test_axes_in_another_order_have_a_folder_of_their_own(self) -> None:
        folders = {axes: Location("precomputed", "gs://bucket/em", None, axes).folder for axes in ("xyz", "yxz", "zyx")}
        assert folders == {"xyz": "gs/bucket/em", "yxz": "gs/bucket/em@yxz", "zyx": "gs/bucket/em@zyx"}

    def test_axes_and_a_server_of_its_own(self) -> None:
        assert (
            Location("n5", "s3://bucket/em", "https://minio.local", "yxz").folder == "s3+minio.local/bucket/em@n5@yxz"
        )

    def test_axes_are_not_mistaken_for_part_of_a_name(self) -> None:
        assert Location("n5", "gs://b/em", None, "yxz").folder != Location("n5", "gs://b/em@yxz").folder

    def test_two_forms_at_one_address_have_two_folders(self) -> None:
        folders = {Location(form, "gs://bucket/em").folder for form in ("precomputed", "n5", "zarr")}
        assert len(folders) == 3


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
