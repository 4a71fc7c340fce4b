"""A real S3 implementation on loopback: moto's server, and a folder tree copied into it for anybody to read.

with serve_s3() as s3:
    s3.upload(folder, "some-bucket")
    tensorstore.KvStore.open(s3.kvstore("some-bucket", "a/")).result()
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import ThreadedMotoServer

REGION = "us-east-1"


@dataclasses.dataclass(frozen=True)
class S3:
    """A running S3 service."""

    url: str

    def client(self) -> Any:
        """A boto3 client that may do everything."""
        # Untyped modules, so that they are imported as values.
        boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            # Any key is accepted; without one boto3 would look through the user's own.
            aws_access_key_id="replica",
            aws_secret_access_key="replica",
            config=config.Config(s3={"addressing_style": "path"}),
        )

    def upload(self, folder: str | os.PathLike[str], bucket: str, prefix: str = "", public: bool = True) -> None:
        """Copy the files under `folder` into `bucket`, which anybody may then read and list unless not `public`."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        if public:
            client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(public_read(bucket)))
        root = pathlib.Path(folder)
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            client.upload_file(str(path), bucket, prefix + path.relative_to(root).as_posix())

    def kvstore(self, bucket: str, path: str = "") -> dict[str, Any]:
        """TensorStore's spec of `bucket`, read anonymously."""
        return {
            "driver": "s3",
            "bucket": bucket,
            "path": path,
            "endpoint": self.url,
            "aws_region": REGION,
            "aws_credentials": {"type": "anonymous"},
        }

    def storage_options(self) -> dict[str, Any]:
        """What fsspec's `s3://` file system needs to read here anonymously."""
        return {"anon": True, "client_kwargs": {"endpoint_url": self.url, "region_name": REGION}}


def public_read(bucket: str) -> dict[str, Any]:
    """The bucket policy of an open data set."""
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        # At Amazon the first allows the second; moto asks for it.
        "Action": ["s3:GetObject", "s3:HeadObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


@contextmanager
def serve_s3() -> Iterator[S3]:
    """An empty S3 service in a thread, on a port of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    log = logging.getLogger("werkzeug")
    level = log.level
    log.setLevel(logging.ERROR)  # it writes a line for each request
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3(f"http://{host}:{port}")
    finally:
        server.stop()
        log.setLevel(level)
