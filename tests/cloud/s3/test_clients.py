"""Other clients, unchanged: the AWS CLI, and s3fs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celaje.cli.buckets import bucket_uploads
from tests.cloud.s3.server import ACCOUNTS, SECRET, Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def aws(served: Served, *words: str, check: bool = True) -> str:
    """What the AWS CLI says."""
    pytest.importorskip("awscli")
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": served.endpoint,
        "AWS_ACCESS_KEY_ID": ACCOUNTS[0],
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    code = "import sys; from awscli.clidriver import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_aws_cli_copies_syncs_lists_and_removes(served: Served, client: S3Client, tmp_path: Path) -> None:
    aws(served, "s3", "mb", "s3://from-the-cli")
    there, back = tmp_path / "there", tmp_path / "back"
    (there / "sub dir").mkdir(parents=True)
    (there / "one.txt").write_text("one")
    (there / "sub dir" / "large").write_bytes(os.urandom(9 << 20))  # in parts
    aws(served, "s3", "sync", str(there), "s3://from-the-cli/tree")
    listing = aws(served, "s3", "ls", "--recursive", "s3://from-the-cli")
    assert "tree/one.txt" in listing
    assert f"{9 << 20} tree/sub dir/large" in listing
    assert "PRE sub dir/" in aws(served, "s3", "ls", "s3://from-the-cli/tree/")
    aws(served, "s3", "sync", "s3://from-the-cli/tree", str(back))
    for name in ("one.txt", "sub dir/large"):
        assert (back / name).read_bytes() == (there / name).read_bytes()
    aws(served, "s3", "mv", "s3://from-the-cli/tree/one.txt", "s3://from-the-cli/two.txt")
    assert client.get_object(Bucket="from-the-cli", Key="two.txt")["Body"].read() == b"one"
    assert "BucketNotEmpty" in aws(served, "s3", "rb", "s3://from-the-cli", check=False)
    aws(served, "s3", "rb", "--force", "s3://from-the-cli")
    assert "from-the-cli" not in aws(served, "s3", "ls")


def test_s3fs_has_a_bucket_as_a_file_system(served: Served, bucket: str) -> None:
    s3fs = pytest.importorskip("s3fs")
    files = s3fs.S3FileSystem(
        key=ACCOUNTS[0], secret=SECRET, client_kwargs={"endpoint_url": served.endpoint, "region_name": "us-east-1"}
    )
    body = os.urandom(7 << 20)
    with files.open(f"{bucket}/folder/file", "wb") as file:
        file.write(body)
    assert files.ls(f"{bucket}/folder") == [f"{bucket}/folder/file"]
    assert files.info(f"{bucket}/folder/file")["size"] == len(body)
    with files.open(f"{bucket}/folder/file", "rb") as file:
        file.seek(1000)
        assert file.read(10) == body[1000:1010]
        file.seek(0)
        assert file.read() == body
    files.copy(f"{bucket}/folder/file", f"{bucket}/folder/copy")
    assert files.cat(f"{bucket}/folder/copy") == body
    assert sorted(files.find(bucket)) == [f"{bucket}/folder/copy", f"{bucket}/folder/file"]
    files.rm(f"{bucket}/folder", recursive=True)
    assert not files.exists(f"{bucket}/folder/file")


def test_the_command_shows_uploads_that_were_never_finished_and_aborts_them(
    served: Served, client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", served.endpoint),
        ("AWS_ACCESS_KEY_ID", ACCOUNTS[0]),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    upload = client.create_multipart_upload(Bucket=bucket, Key="left/behind")["UploadId"]
    client.upload_part(Bucket=bucket, Key="left/behind", UploadId=upload, PartNumber=1, Body=bytes(2 << 20))
    assert bucket_uploads([f"{bucket}/left"]) == 0
    told = capsys.readouterr().out
    assert f"{bucket}/left/behind" in told
    assert "2M" in told
    assert f"celaje bucket uploads {bucket}/left --abort" in told
    assert bucket_uploads(["--json"]) == 0
    assert upload in capsys.readouterr().out
    assert bucket_uploads([bucket, "--abort"]) == 0
    assert "1 uploads are aborted" in capsys.readouterr().out
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert bucket_uploads([bucket]) == 0
    assert "No upload is unfinished" in capsys.readouterr().out
