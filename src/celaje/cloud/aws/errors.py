"""What a client is told when a request is refused: AWS's code, and a message that says what was required."""

from __future__ import annotations

from collections.abc import Mapping

from celaje.errors import CelajeError


class AwsError(CelajeError):
    """A refusal in AWS's terms.

    `code` is AWS's, as the service's documentation has it; `status` is the HTTP status. `fields` are further members of
    the error where a protocol has them (S3's BucketName, for example), `headers` what the answer says beside it. Client
    errors are 400 to 499: SDKs try requests again that were answered with 500 to 599.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
