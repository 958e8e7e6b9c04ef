"""A hook that is a URL: the facts are posted to it as JSON, and a status of 2xx is a yes."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from spine_migrate import __version__
from spine_migrate.errors import ConfigurationError
from spine_migrate.observe.facts import EVENTS


@dataclass(frozen=True)
class Webhook:
    """``str()`` names the server alone: paths and queries of such URLs are often secrets."""

    url: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def __call__(self, body: bytes, _environment: Mapping[str, str], seconds: float) -> str | None:
        """None where the answer is 2xx within ``seconds``, else what went wrong, in words."""
        answer: list[str | None] = []
        # A time-out of sockets begins anew with each byte, and none counts for the look-up of a name.
        asking = threading.Thread(target=lambda: answer.append(self._ask(body, seconds)), daemon=True)
        asking.start()
        asking.join(seconds)
        return answer[0] if answer else f"it did not answer within {seconds:g} seconds"

    def _ask(self, body: bytes, seconds: float) -> str | None:
        headers = {"Content-Type": "application/json", "User-Agent": f"spine-migrate/{__version__}"}
        try:
            request = urllib.request.Request(self.url, body, headers, method="POST")  # noqa: S310 - http or https, see below
            opener = urllib.request.build_opener(_NotElsewhere)
            with opener.open(request, timeout=seconds):
                return None
        except urllib.error.HTTPError as error:
            with error:
                return f"it answers {error.code}"
        except TimeoutError:
            return f"it did not answer within {seconds:g} seconds"
        except urllib.error.URLError as error:
            return f"it cannot be reached ({error.reason})"
        except (OSError, HTTPException, ValueError) as error:
            return f"it cannot be reached ({type(error).__name__})"


class _NotElsewhere(urllib.request.HTTPRedirectHandler):
    """A redirect would become a GET without the facts; it is an error like any other status."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def named(text: str) -> tuple[str, Webhook]:
    """``EVENT=URL``. Raises ConfigurationError; a sentence about the URL does not repeat it."""
    event, sign, url = text.partition("=")
    if not sign or event not in EVENTS:
        raise ConfigurationError(f"--hook takes EVENT=URL, with one of these events: {', '.join(EVENTS)}.")
    if not _usable(url):
        raise ConfigurationError(f"The URL of --hook {event} is none of http or https with a host; write it in full.")
    if "@" in urlsplit(url).netloc:
        raise ConfigurationError(f"The URL of --hook {event} has a login in it, which is not sent; take it out.")
    return event, Webhook(url)


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
