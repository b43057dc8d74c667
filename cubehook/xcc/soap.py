"""
SOAP envelopes and faults, and the one parser that received XML goes through.

The parser is the standard library's expat, not lxml: lxml keeps every element and attribute name it
ever met for as long as its thread lives, so a peer who invents names fills the memory for good
(measured with lxml 6.1: 1 MiB lost for each body of 1 MiB).  Expat's own namespace processing stays
off, as it copies a namespace into the name of every element: the few names that need it are resolved here.

Fault shapes and texts: Cisco's API guide, "Fault Messages".
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import NamedTuple, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate

from cubehook.xcc.messages import Fault

XCC = "http://www.cisco.com/schema/cisco_xcc/v1_0"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP = frozenset((SOAP_12, SOAP_11))

MAX_BODY = 1 << 20
"""Bytes of a message."""

MAX_MARKUP = 8192
"""`<` characters of a message, and `=` characters: no more elements or attributes than that."""

MAX_DEPTH = 64
"""Elements within one another; real messages have up to nine."""

SPACE = " \t\r\n"
"""XML's white space; other characters that Unicode calls space are text."""

_START = f'<?xml version="1.0" encoding="UTF-8"?><SOAP:Envelope xmlns:SOAP="{SOAP_12}">'
_END = "</SOAP:Body></SOAP:Envelope>"

_MAX_WORDS = 300
"""Characters of an explanation: it may hold a received name, which may be as long as a message."""


class SoapError(Exception):
    """
    What was received cannot be taken for a message, and why, in words for a person.

    `status` is the HTTP status of the answer, `word` one of a closed set for counting,
    `reason` the text of Cisco's that fits best, `tag` the local name of the element at fault.
    """

    status = 400
    word = "malformed"
    reason = "Badly framed XML received"

    def __init__(self, explanation: str, tag: str | None = None) -> None:
        super().__init__(explanation[:_MAX_WORDS])
        self.tag = tag[:_MAX_WORDS] if tag is not None else None

    def fault(self) -> Fault:
        """The fault to answer with: the sender's, an XML parser error."""
        return xml_parser_error(self.reason, detail=str(self), tag=self.tag)


class MalformedError(SoapError):
    """Not well-formed XML, or not in UTF-8 or UTF-16."""


class TooLargeError(SoapError):
    """More bytes than `limit`."""

    status = 413
    word = "too_large"
    reason = "Memory exhausted"

    def __init__(self, limit: int = MAX_BODY) -> None:
        super().__init__(f"The message is larger than {limit} bytes")


class TooComplexError(SoapError):
    """More elements, or deeper, than any message has."""

    status = 413
    word = "too_complex"
    reason = "Memory exhausted"


class ForbiddenError(SoapError):
    """A document type declaration, which SOAP forbids (SOAP 1.2 part 1, section 5)."""

    word = "forbidden"


class NotSoapError(SoapError):
    """Well-formed XML, a web page perhaps, whose outermost element is no SOAP envelope."""

    word = "not_soap"
    reason = "An unexpected XML tag has been received"


class NamespaceError(SoapError):
    """An envelope or a message in a namespace that is not SOAP's or XCC's."""

    word = "namespace"
    reason = "Unknown namespace received"


class MissingElementError(SoapError):
    """`path` names an element that its message cannot do without; it is absent or empty."""

    word = "missing_element"
    reason = "An expected XML tag or sequence is missing"

    def __init__(self, path: str) -> None:
        super().__init__(f"The element {path} is missing or empty", path.rpartition("/")[2])
        self.path = path


class InvalidValueError(SoapError):
    """`path` names an element whose value is of no use and that cannot be left out."""

    word = "invalid_value"
    reason = "The value for an XML tag is not valid"

    def __init__(self, path: str) -> None:
        super().__init__(f"The value of the element {path} is not valid", path.rpartition("/")[2])
        self.path = path


class UnsupportedError(SoapError):
    """A message called `name` that is sound but not one to send to us."""

    word = "unsupported"
    reason = "An unsupported operation request has been received"

    def __init__(self, name: str) -> None:
        super().__init__(f"The message {name} is not supported here", name)


class Received(NamedTuple):
    """The first element within a SOAP body: a message or a fault."""

    element: Element
    """Its tags are the names as written, prefix included: see `local_name`."""
    name: str
    """Its local name."""
    namespace: str | None
    """None if it has none."""


def parse(body: bytes) -> Received:
    """
    What the SOAP envelope in `body` holds.

    Takes SOAP 1.2 and, leniently, 1.1; UTF-8, or UTF-16 with its byte order mark, whatever encoding
    is declared.  Comments and processing instructions are ignored, a document type and with it every
    entity is refused before it is read.  Raises SoapError and nothing else, and takes a time that
    grows no faster than the body.
    """
    if len(body) > MAX_BODY:
        raise TooLargeError
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            body = body.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"The message is not UTF-16: {error.reason}") from None
    if b"\0" in body:
        # Expat would take it for UTF-16 without a mark, in which the counts below miss what they count.
        raise MalformedError("The message has NUL characters")
    if body.count(b"<") > MAX_MARKUP or body.count(b"=") > MAX_MARKUP:
        raise TooComplexError(f"The message has more than {MAX_MARKUP} pieces of markup")
    root = _tree(body)
    # No element is deeper than there are end tags.
    if body.count(b"</") > MAX_DEPTH and _is_deep(root):
        raise TooComplexError(f"The message has more than {MAX_DEPTH} elements within one another")
    name = local_name(root.tag)
    namespace = _namespace(root)
    if name != "Envelope":
        raise NotSoapError(f"The outermost element is {name}, not a SOAP Envelope", name)
    if namespace not in SOAP:
        raise NamespaceError("The envelope is not in the namespace of SOAP 1.2", name)
    for part in root:
        if local_name(part.tag) == "Body" and _namespace(part, root) == namespace:
            for element in part:
                return Received(element, local_name(element.tag), _namespace(element, part, root))
            raise MissingElementError("Envelope/Body/*")
    raise MissingElementError("Envelope/Body")


def _tree(body: bytes) -> Element:
    # The encoding given here goes before a declared one.
    parser = ParserCreate("utf-8")
    parser.buffer_text = True
    builder = TreeBuilder()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(body, True)
    except ExpatError as error:
        raise MalformedError(f"The message is not well-formed XML: {error}") from None
    except ValueError:
        raise MalformedError("The message has characters that are not UTF-8") from None
    return builder.close()


def _refuse_document_type(*_: object) -> NoReturn:
    raise ForbiddenError("The message has a document type declaration (<!DOCTYPE), which SOAP forbids")


def _is_deep(root: Element) -> bool:
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
        if not level:
            return False
    return True


def _namespace(element: Element, *around: Element) -> str | None:
    """The namespace of the element's name; `around` are the elements around it, innermost first."""
    prefix = element.tag.rpartition(":")[0]
    declaration = f"xmlns:{prefix}" if prefix else "xmlns"
    for declaring in (element, *around):
        namespace = declaring.get(declaration)
        if namespace is not None:
            return namespace
    return None


def local_name(tag: str) -> str:
    """An element's name without its prefix."""
    return tag.rpartition(":")[2]


def text_of(element: Element) -> str | None:
    """The text of an element without the white space around it, None if nothing is left."""
    text = element.text
    return text.strip(SPACE) or None if text else None


# What XML 1.0 has no way to say, and what must not stand as it is in text.  A bare
# carriage return would be read as a line feed.
_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile("[&<>\r]|" + _ILLEGAL.pattern)
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def escape(text: str) -> str:
    """`text` for use within an element; ValueError if XML cannot hold one of its characters."""
    return text if _SPECIAL.search(text) is None else _SPECIAL.sub(_escape_one, text)


def _escape_one(match: re.Match[str]) -> str:
    character = match[0]
    if character not in _ESCAPES:
        raise ValueError(f"XML cannot hold the character U+{ord(character):04X}")
    return _ESCAPES[character]


def checked_name(name: str) -> str:
    """`name` if it can be an element's name (in ASCII), else ValueError."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot be the name of an XML element")
    return name


def element(name: str, content: str, attributes: str = "") -> str:
    """An element around `content`, which is XML already."""
    return f"<{name}{attributes}>{content}</{name}>" if content else f"<{name}{attributes}/>"


def envelope(content: str, line_breaks: bool = False) -> bytes:
    """
    A SOAP 1.2 message around `content`, on one line, or as routers also lay it out.

    Then there are line breaks around the content, and within an element before a text that would end past
    column 110, which reproduces the captured notifications.
    """
    if line_breaks:
        return "\n".join((_START, "<SOAP:Body>", _broken(content), _END)).encode()
    return f"{_START}<SOAP:Body>{content}{_END}".encode()


_PIECE = re.compile("<[^>]*>|[^<]+")
_LAST_COLUMN = 110


def _broken(content: str) -> str:
    parts = []
    column = 0
    for piece in _PIECE.findall(content):
        if piece[0] != "<" and column + len(piece) > _LAST_COLUMN:
            parts.append("\n")
            column = 0
        parts.append(piece)
        column += len(piece)
    return "".join(parts)


SERVICE_EXCEPTION = "SERVICE EXCEPTION"
XML_PARSER_ERROR = "XML PARSER ERROR"


def service_exception(
    reason: str,
    *,
    error_code: str = "CUBEHOOK:1",
    operation: str | None = None,
    transaction_id: str | None = None,
    registration_id: str | None = None,
    text: str | None = None,
) -> Fault:
    """
    A fault of whoever answers: the request was understood and cannot be served.

    `error_code` is "an error identifier with service prefix and number" (guide); `operation`
    is the request's name, the ids are the request's own.
    """
    return Fault(
        code="Receiver",
        subcode=SERVICE_EXCEPTION,
        reason=reason,
        detail=_present(
            errorCode=error_code,
            operation=operation,
            transactionID=transaction_id,
            registrationID=registration_id,
            text=text,
        ),
    )


def xml_parser_error(
    reason: str,
    *,
    code: str = "Sender",
    detail: str | None = None,
    message: str | None = None,
    tag: str | None = None,
) -> Fault:
    """
    A fault in the request itself.

    `reason` is one of Cisco's texts, `detail` says where the error is, `message` is a copy of the
    request, `tag` the element at fault.  `code` is Sender or Receiver.
    """
    return Fault(
        code=code,
        subcode=XML_PARSER_ERROR,
        reason=reason,
        detail=_present(errorXMLDetail=detail, errorXMLMsg=message, errorXMLTag=tag),
    )


def _present(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def write_fault(fault: Fault) -> str:
    """The Fault element; ValueError if its code or a name in its detail cannot be written."""
    parts = [f"<SOAP:Fault><SOAP:Code><SOAP:Value>SOAP:{checked_name(fault.code)}</SOAP:Value>"]
    if fault.subcode is not None:
        parts.append(f"<SOAP:Subcode>{element('SOAP:Value', escape(fault.subcode))}</SOAP:Subcode>")
    parts.append(f'</SOAP:Code><SOAP:Reason><SOAP:Text xml:lang="en">{escape(fault.reason)}</SOAP:Text>')
    parts.append("</SOAP:Reason>")
    if fault.detail:
        name = "XMLParserError" if fault.subcode == XML_PARSER_ERROR else "ServiceException"
        parts.append(f'<SOAP:Detail><{name} xmlns="{XCC}">{leaves(fault.detail)}</{name}></SOAP:Detail>')
    parts.append("</SOAP:Fault>")
    return "".join(parts)


def leaves(values: Mapping[str, str]) -> str:
    """An element for each of `values`, by name; ValueError if one cannot be an element's name."""
    return "".join(element(checked_name(name), escape(text)) for name, text in values.items())


_SOAP_11_CODES = {"Client": "Sender", "Server": "Receiver"}


def read_fault(element: Element) -> Fault:
    """
    A fault of SOAP 1.2 or 1.1, as far as it goes: what is absent is empty.

    `detail` takes every element in Detail that holds text, at any depth, by its local name.
    """
    code = subcode = None
    reason = ""
    detail: dict[str, str] = {}
    for part in element:
        match local_name(part.tag):
            case "Code":
                values = [text for value in part.iter() if (text := text_of(value))]
                code, subcode = [*values, None, None][:2]
            case "faultcode":
                code = text_of(part)
            case "Reason":
                reason = next((text for value in part.iter() if (text := text_of(value))), "")
            case "faultstring":
                reason = text_of(part) or ""
            case "Detail" | "detail":
                for leaf_element in part.iter():
                    text = text_of(leaf_element)
                    if text is not None:
                        detail[local_name(leaf_element.tag)] = text
    code = local_name(code or "Receiver")
    return Fault(
        code=_SOAP_11_CODES.get(code, code),
        subcode=subcode,
        reason=reason,
        detail=detail,
    )
