"""The HTTP/1.1 parsers: httptools (C) where it is installed, else h11 behind the same callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesite.net.h11_parser import ParserError, ParserUpgrade, RequestParser, ResponseParser
else:
    try:
        from httptools import HttpParserError as ParserError
        from httptools import HttpParserUpgrade as ParserUpgrade
        from httptools import HttpRequestParser as RequestParser
        from httptools import HttpResponseParser as ResponseParser
    except ImportError:
        from edgesite.net.h11_parser import ParserError, ParserUpgrade, RequestParser, ResponseParser

__all__ = ["ParserError", "ParserUpgrade", "RequestParser", "ResponseParser"]
