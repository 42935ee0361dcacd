"""Addresses without what only their owner may know: passwords, and on the web queries, which may be signatures."""

from __future__ import annotations

import re

_WEB = re.compile(r"(?:^|::)https?://")
_QUERY = re.compile(r"[?#]")
_PASSWORD = re.compile(r"(://[^/@:]*):[^/]*@")
_PASSWORD_IN_TEXT = re.compile(r"(://[^\s/@:]*):[^\s/]*@")
_IN_TEXT = re.compile(r"(https?://)(?:[^\s/?#@'\"]*@)?([^\s?#'\"]*)(?:[?#][^\s'\"]*)?")


def public(url: str) -> str:
    """A URL as it may be stored: over http(s) without user, query and fragment, any other one as it is.

    A shard keeps this name when it is signed anew.
    """
    if not _WEB.search(url):
        return url
    scheme, _, rest = without_query(url)[0].rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def without_query(url: str) -> tuple[str, str]:
    """A web address and what follows its path, which may hold slashes; nothing follows in any other URL."""
    start = _QUERY.search(url) if _WEB.search(url) else None
    return (url[: start.start()], url[start.start() :]) if start else (url, "")


def without_password(url: str) -> str:
    """The address of an archive or an output as it may be stored: any URL without the password in it."""
    return _PASSWORD.sub(r"\1@", public(url))


def redacted(text: str) -> str:
    """A message in which addresses are shortened likewise: libraries quote what they were asked for."""
    return _PASSWORD_IN_TEXT.sub(r"\1@", _IN_TEXT.sub(r"\1\2", text))
