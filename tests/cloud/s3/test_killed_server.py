"""The server is killed at random moments while clients put objects: what was answered is there, nothing is half.

CELAJE_KILLS=n kills it that many times (4).
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.cloud.s3 import server
from tests.cloud.s3.conftest import client_of

KILLS = int(os.environ.get("CELAJE_KILLS", "4"))
THREADS = 3


def body(number: int) -> bytes:
    chance = random.Random(number)
    return b"%012d" % number + chance.randbytes(chance.choice((10, 60_000, 70_000, 3_000_000)))


def put_until_it_dies(urls: list[str], numbers: list[int], answered: list[int], first: threading.Event) -> None:
    """PUT one object after the other by signed URLs, and note which were answered."""
    for url, number in zip(urls, numbers, strict=True):
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.netloc, timeout=60)
        try:
            connection.request("PUT", f"{place.path}?{place.query}", body(number))
            answer = connection.getresponse()
            if answer.status != 200:
                return
            answered.append(number)
            first.set()
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()


def test_every_answered_put_is_there_after_each_kill(tmp_path: Path) -> None:
    chance = random.Random(2)
    answered: list[int] = []
    begun = 0
    for turn in range(KILLS + 1):
        command = [sys.executable, server.__file__, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
            client = client_of(endpoint, signature_version="s3v4")
            client.create_bucket(Bucket="a-bucket")
            there = {}
            for page in client.get_paginator("list_objects_v2").paginate(Bucket="a-bucket"):
                there |= {each["Key"]: each["Size"] for each in page.get("Contents", [])}
            for number in answered:
                assert there[str(number)] == len(body(number))
            for key in there:
                assert client.get_object(Bucket="a-bucket", Key=key)["Body"].read() == body(int(key))
            if turn == KILLS:
                client.close()
                process.kill()
                break
            threads, first = [], threading.Event()
            for _ in range(THREADS):
                numbers = list(range(begun, begun + 40))
                begun += 40
                urls = [
                    client.generate_presigned_url("put_object", Params={"Bucket": "a-bucket", "Key": str(number)})
                    for number in numbers
                ]
                threads.append(threading.Thread(target=put_until_it_dies, args=(urls, numbers, answered, first)))
            for thread in threads:
                thread.start()
            assert first.wait(60)
            time.sleep(chance.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            for thread in threads:
                thread.join()
            client.close()
    assert len(answered) >= KILLS
