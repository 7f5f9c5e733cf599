"""Files from the network: encrypted on their way, and no larger than they are known to be."""

from __future__ import annotations

import http.client
import urllib.request
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import IO

from .writers import as_output_error

_SECONDS = 30


def download(url: str, path: Path, limit: int) -> None:
    """Copies a file from the network.

    Args:
        url: Its address, which begins with ``https://``, as those do that it redirects to.
        path: Where to write it.
        limit: How many bytes it may have.

    Raises:
        OSError: No connection, no such file, or one that is larger.
        OutputError: It cannot be written.
    """
    with as_output_error(path.parent):
        output = path.open("wb")
    with output:
        try:
            with closing(_open(url)) as response:
                while some := response.read(1 << 20):
                    limit -= len(some)
                    if limit < 0:
                        raise OSError("it is larger than it was")
                    with as_output_error(path.parent):
                        output.write(some)
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke ({error!r})") from error


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirections that stay encrypted."""

    def redirect_request(  # noqa: PLR0917
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_encrypted(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _check_encrypted(url: str) -> None:
    if not url.startswith("https://"):
        raise OSError(f"{url} is not encrypted")


def _open(url: str) -> http.client.HTTPResponse:
    _check_encrypted(url)
    opener = urllib.request.build_opener(_HttpsOnly)
    request = urllib.request.Request(url, headers={"User-Agent": "pushforward"})  # noqa: S310
    return opener.open(request, timeout=_SECONDS)  # type: ignore[no-any-return]
