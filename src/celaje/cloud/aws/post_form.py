"""Objects that a page's form puts: POST to a bucket, as multipart/form-data (Amazon S3 API reference, "POST Object").

The fields come first, one of them the policy that says who allowed it and what (post_policy.py), and then the file,
which streams. A form that was read stands for the request that PutObject would be, with the fields as its headers; it
is answered in the form's own way. What comes after the file is not looked at.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from urllib.parse import quote, urlencode, urlsplit
from xml.sax.saxutils import escape

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.message import HttpAnswer, HttpRequest
from celaje.cloud.aws.parse_xml import read_xml
from celaje.cloud.aws.post_policy import SIGNING, missing_field
from celaje.cloud.aws.refusals import DIALECTS
from celaje.cloud.aws.routing import bucket_of_host
from celaje.cloud.aws.serialize_xml import PROLOGUE

MOST_BEFORE_FILE = 20 << 10  # bytes of the fields, as at AWS
_HEADERS = "cache-control content-type content-disposition content-encoding content-md5 expires".split()


def is_post_form(request: HttpRequest) -> bool:
    """Whether a request to S3 is such a form: to a bucket, and to nothing of it."""
    return (
        request.method == "POST"
        and not request.query
        and (request.header("content-type") or "").lower().startswith("multipart/form-data")
        and _bucket(request) is not None
    )


def _bucket(request: HttpRequest) -> str | None:
    bucket = bucket_of_host(request.header("host") or "")
    rest = request.path.strip("/")
    if bucket is not None:
        return bucket if not rest else None
    return rest if rest and "/" not in rest else None


class PostForm:
    """The form of a request whose bytes `source` gives, read as far as to its file. `fields` have names in lower case;
    `file_name` is the file's own, without folders.

    AwsError: MalformedPOSTRequest, MaxPostPreDataLengthExceeded, IncorrectNumberOfFilesInPostRequest.
    """

    def __init__(self, request: HttpRequest, source: Callable[[], bytes]) -> None:
        bucket = _bucket(request)
        assert bucket is not None
        self.bucket = bucket
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self._request = request
        self._source = source
        self._before = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._value = bytearray()
        self._in_file = self._file_ended = self._ended = False
        self._pieces: list[bytes] = []
        content_type = request.header("content-type") or ""
        if not content_type.isascii():
            raise _malformed()
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise _malformed()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                },
            )
        except FormParserError:
            raise _malformed() from None
        while not (self._in_file or self._file_ended or self._ended):
            self._feed()
        if not (self._in_file or self._file_ended):
            raise AwsError(
                "IncorrectNumberOfFilesInPostRequest", "POST requires exactly one file upload per request."
            )

    def content(self) -> bytes:
        """The next bytes of the file, b"" at its end, when all of the request has been read."""
        while not self._pieces and not self._ended:
            self._feed()
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def _feed(self) -> None:
        piece = self._source()
        if not piece:
            self._ended = True
            if self._in_file:
                raise _malformed()  # it was cut short
            return
        if self._file_ended:
            return
        try:
            self._parser.write(piece)
        except FormParserError:
            raise _malformed() from None

    # What the parser calls, for a part of the form after the other.

    def _part_begins(self) -> None:
        self._headers, self._value, self._name = [], bytearray(), ""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header[1].extend(data[start:end])

    def _header_ends(self) -> None:
        name, value = self._header
        self._headers.append((bytes(name).lower(), bytes(value)))
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        disposition = dict(self._headers).get(b"content-disposition", b"")
        _, parameters = parse_options_header(disposition.decode("latin-1"))  # which makes the same bytes of it again
        name = parameters.get(b"name")
        if self._file_ended:
            return
        if name is None:
            raise _malformed()
        self._name = _text(name).lower()
        if self._name == "file":
            self._in_file = True
            self.file_name = posixpath.basename(_text(parameters.get(b"filename", b"")).replace("\\", "/"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(bytes(data[start:end]))
        elif not self._file_ended:
            self._count(end - start)
            self._value.extend(data[start:end])

    def _count(self, size: int) -> None:
        self._before += size
        if self._before > MOST_BEFORE_FILE:
            raise AwsError(
                "MaxPostPreDataLengthExceeded",
                "Your POST request fields preceding the upload file were too large.",
                fields={"MaxPostPreDataLengthBytes": str(MOST_BEFORE_FILE)},
            )

    def _part_ends(self) -> None:
        if self._in_file:
            self._in_file, self._file_ended = False, True
        elif not self._file_ended:
            if self._name in self.fields:
                raise AwsError("MalformedPOSTRequest", f"The form has the field {self._name[:60]} more than once.")
            self.fields[self._name] = _text(bytes(self._value))

    # What it stands for, and how it is answered.

    def key(self) -> str:
        """The object's key, with the file's name where the form says so. InvalidArgument."""
        if not self.fields.get("key"):
            raise missing_field("key")
        return self.fields["key"].replace("${filename}", self.file_name)

    def as_put(self) -> HttpRequest:
        """The PutObject that the form asks for, without its body. InvalidArgument; MalformedXML."""
        headers = [("x-amz-acl" if name == "acl" else name, value.strip()) for name, value in self.fields.items()]
        headers = [
            (name, value)
            for name, value in headers
            if name in _HEADERS or (name.startswith("x-amz-") and name not in SIGNING)
        ]
        for name, value in headers:
            if any(ord(letter) < 0x20 or letter == "\x7f" for letter in value):
                raise AwsError("InvalidArgument", f"The field {name[:60]} must be one line, of no control characters")
        if "tagging" in self.fields:
            headers.append(("x-amz-tagging", _tagging(self.fields["tagging"])))
        path = f"/{quote(self.bucket)}/{quote(self.key(), safe='')}"
        return HttpRequest(
            "PUT",
            path,
            "",
            headers,
            source=self._request.source,
            secure=self._request.secure,
            inside=self._request.inside,
        )

    def answered(self, answer: HttpAnswer) -> HttpAnswer:
        """PutObject's answer, as the form wants it: a redirection, 200, 201 with what was made, or else 204."""
        etag = next((value for name, value in answer.headers if name.lower() == "etag"), "")
        key = self.key()
        wanted = self.fields.get("success_action_redirect") or self.fields.get("redirect")
        if wanted and (target := _redirection(wanted, {"bucket": self.bucket, "key": key, "etag": etag})):
            return HttpAnswer(303, [*answer.headers, ("Location", target)])
        host = self._request.header("host") or ""
        named = f"/{self.bucket}" if bucket_of_host(host) is None else ""
        location = f"http://{host}{named}/{quote(key)}"
        headers = [*answer.headers, ("Location", location)]
        status = self.fields.get("success_action_status")
        if status != "201":
            return HttpAnswer(200 if status == "200" else 204, headers)
        told = {"Location": location, "Bucket": self.bucket, "Key": key, "ETag": etag}
        elements = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in told.items())
        body = f"{PROLOGUE}<PostResponse>{elements}</PostResponse>"
        return HttpAnswer(201, [*headers, ("Content-Type", "application/xml")], body.encode())


def _malformed() -> AwsError:
    return AwsError("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise AwsError("MalformedPOSTRequest", "The fields of a form must be UTF-8.") from None


def _tagging(xml: str) -> str:
    """A Tagging document as the header x-amz-tagging has it."""
    root = read_xml(xml.encode(), DIALECTS["s3"])
    pairs = []
    for tag in (each for tags in root.children if tags.name == "TagSet" for each in tags.children):
        members = {each.name: each.text for each in tag.children}
        pairs.append((members.get("Key", ""), members.get("Value", "")))
    return urlencode(pairs)


def _redirection(wanted: str, told: dict[str, str]) -> str | None:
    """Where to, None if that is no address of a page: then the answer is as if none was asked for."""
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc or not wanted.isprintable():
        return None
    query = "&".join([*([parts.query] if parts.query else []), urlencode(told, quote_via=quote)])
    return parts._replace(query=query, path=parts.path or "/").geturl()
