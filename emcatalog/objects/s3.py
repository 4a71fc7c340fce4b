"""S3, through s3fs as a client; an extra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emcatalog.errors import MissingExtraError
from emcatalog.locations import StorageOptions
from emcatalog.objects.remote import RemoteObject
from emcatalog.objects.web import MD5, as_hex
from emcatalog.stores import make_store


@dataclass(frozen=True, slots=True)
class S3Folder:
    """A folder of a bucket."""

    bucket: str
    prefix: str
    """Of names below the folder: empty, or with a slash at its end."""
    filesystem: Any
    """Of s3fs."""
    anonymous: bool

    def describe(self, name: str) -> RemoteObject:
        """One object."""
        head = self._call("head_object", Key=self.prefix + name)
        return RemoteObject(name, head["ContentLength"], *self._md5_and_version(head))

    def list(self) -> Iterator[RemoteObject]:
        """Every object below, in any order."""
        page: Mapping[str, Any] = {"NextContinuationToken": None}
        while "NextContinuationToken" in page:
            token = page["NextContinuationToken"]
            more = {"ContinuationToken": token} if token else {}
            page = self._call("list_objects_v2", Prefix=self.prefix, **more)
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):  # what some tools put in the place of a folder
                    name = item["Key"].removeprefix(self.prefix)
                    yield RemoteObject(name, item["Size"], *self._md5_and_version(item))

    def _call(self, method: str, **arguments: str) -> Mapping[str, Any]:
        from botocore.exceptions import ParamValidationError

        try:
            answer: Mapping[str, Any] = self.filesystem.call_s3(method, Bucket=self.bucket, **arguments)
        except ParamValidationError as error:
            raise FileNotFoundError(f"{self.bucket!r} is not the name of a bucket") from error
        return answer

    def _md5_and_version(self, item: Mapping[str, Any]) -> tuple[str | None, str]:
        """Of an ETag. Encrypted with a key of the owner's it looks like an MD5 and is none; nobody reads that unsigned.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        """
        etag = item["ETag"].strip('"')
        return (as_hex(etag) if self.anonymous and MD5.fullmatch(etag) else None), etag


def open_s3(url: str, options: StorageOptions, retries: int) -> Any:
    """An s3fs that reaches what TensorStore's store of the same URL does."""
    try:
        import s3fs
    except ImportError as error:
        raise MissingExtraError(f"{url}: sizes and names in S3 need s3fs: pip install 'emcatalog[cloud]'") from error
    store = make_store(url, options, retries).kvstore
    filesystem = s3fs.S3FileSystem(
        anon=options.anonymous,
        endpoint_url=store.get("endpoint"),
        client_kwargs={"region_name": store["aws_region"]} if "aws_region" in store else {},
        config_kwargs={"retries": {"max_attempts": retries, "mode": "standard"}},
    )
    filesystem.retries = 1  # botocore repeats already
    return filesystem
