"""
SOAP envelopes and faults, and the one parser that received XML goes through.

The parser is lxml's.  Its libxml2 keeps every name it meets for as long as the thread lives, so a
`NameBudget` stands before it, or a peer who invents names would fill the memory for good; see
docs/decisions/0003-lxml-and-its-names.md.

Fault shapes and texts: Cisco's API guide, "Fault Messages".
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import NoReturn
from xml.parsers.expat import ExpatError, ParserCreate

from lxml import etree
from lxml.etree import _Element as Element

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

MAX_NEW_NAMES = 4096
"""Names beyond the vocabulary, taken over the life of the process: newer routers have a few."""

MAX_NEW_NAME_BYTES = 1 << 18
"""The bytes of all those names."""

MAX_NAME = 256
"""Bytes of one name beyond the vocabulary."""

MAX_OUTLINES = 1 << 18
"""Bytes of the outlines that are remembered; a call has about ten, of 1 KiB at most."""

MAX_OUTLINE = 1 << 14
"""Bytes of one outline that is remembered."""

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


class NewNamesError(SoapError):
    """Names that are new, when as many as can be remembered have been taken already."""

    status = 413
    word = "new_names"
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


def parse(body: bytes) -> Element:
    """
    What the SOAP envelope in `body` holds: the first element within its body, a message or a fault.

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
    root = _tree(body)
    body_tag = _BODY_TAGS.get(root.tag)
    if body_tag is None:
        name = local_name(root.tag)
        if name != "Envelope":
            raise NotSoapError(f"The outermost element is {name}, not a SOAP Envelope", name)
        raise NamespaceError("The envelope is not in the namespace of SOAP 1.2", name)
    for part in root:
        if part.tag == body_tag:
            if len(part):
                return part[0]
            raise MissingElementError("Envelope/Body/*")
    raise MissingElementError("Envelope/Body")


_BODY_TAGS = {f"{{{namespace}}}Envelope": f"{{{namespace}}}Body" for namespace in SOAP}

# The encoding given here goes before a declared one.
_PARSER = etree.XMLParser(
    encoding="utf-8",
    resolve_entities=False,
    load_dtd=False,
    dtd_validation=False,
    no_network=True,
    huge_tree=False,
    recover=False,
    remove_comments=True,
    remove_pis=True,
    collect_ids=False,
)

_NAMESPACE_ERRORS = frozenset(
    (
        etree.ErrorTypes.WAR_NS_URI,
        etree.ErrorTypes.NS_ERR_XML_NAMESPACE,
        etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE,
        etree.ErrorTypes.NS_ERR_QNAME,
        etree.ErrorTypes.NS_ERR_ATTRIBUTE_REDEFINED,
        etree.ErrorTypes.NS_ERR_EMPTY,
        etree.ErrorTypes.NS_ERR_COLON,
    )
)

# Between a `>` and the next `<`, unless it is all white space.
_text = re.compile(rb">\s*[^<\s][^<]*")


def _tree(body: bytes) -> Element:
    if len(body) > MAX_MARKUP and (body.count(b"<") > MAX_MARKUP or body.count(b"=") > MAX_MARKUP):
        raise TooComplexError(f"The message has more than {MAX_MARKUP} pieces of markup")
    outline = _text.sub(b">", body)
    if b"&" in body or outline not in names.outlines:
        names.admit(body, outline)
    try:
        return etree.fromstring(body, _PARSER)
    except etree.XMLSyntaxError as error:
        code: int = error.code  # type: ignore[attr-defined]
        kind = NamespaceError if code in _NAMESPACE_ERRORS else MalformedError
        raise kind(f"The message is not well-formed XML: {error.msg}") from None


VOCABULARY = {
    *("xmlns", "xmlns:SOAP", "xml:lang", SOAP_12, SOAP_11, XCC, "ServiceException", "XMLParserError"),
    *("SOAP:Envelope", "SOAP:Header", "SOAP:Body", "SOAP:Fault", "SOAP:Code", "SOAP:Subcode", "SOAP:Value"),
    *("SOAP:Reason", "SOAP:Text", "SOAP:Detail", "faultcode", "faultstring", "detail"),
    *("errorCode", "operation", "transactionID", "registrationID", "text"),
    *("errorXMLDetail", "errorXMLMsg", "errorXMLTag"),
}
"""Names, with their prefixes, that cost a budget nothing; the codec adds those of its messages."""


class NameBudget:
    """
    Keeps the names that libxml2 is shown, and thereby keeps for ever, to a bounded number.

    A name is what libxml2 keeps: an element's or attribute's name, a namespace, the target of a processing
    instruction, and a text of 16 to 59 characters that is all white space.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._size = 0
        self.outlines: set[bytes] = set()
        """
        Bodies that were admitted, without their texts.  Another of the same outline and without `&`
        cannot show libxml2 anything new, whether it is well-formed or not.
        """
        self._outlines_size = 0

    def admit(self, body: bytes, outline: bytes) -> None:
        """
        Take note of the names in `body`, and of its outline.

        Raises SoapError, and has taken no note, if they are too many or too long, and if `body` is not
        well-formed, has a document type, or is too deep.
        """
        survey = _Survey()
        survey.read(body)
        new = survey.names - VOCABULARY - self._names
        if new:
            sizes = [len(name.encode()) for name in new]
            if max(sizes) > MAX_NAME:
                raise TooComplexError(f"The message has a name or a namespace of more than {MAX_NAME} bytes")
            size = self._size + sum(sizes)
            if len(self._names) + len(new) > MAX_NEW_NAMES or size > MAX_NEW_NAME_BYTES:
                raise NewNamesError(
                    f"The message has names that are new here ({len(new)}), and no more can be taken"
                    " until this service is started again"
                )
            self._names |= new
            self._size = size
        if survey.is_plain and outline not in self.outlines:
            self._remember(outline)

    def _remember(self, outline: bytes) -> None:
        if len(outline) > MAX_OUTLINE or not all(map(_whole_tag, _tags(outline))):
            return
        if self._outlines_size + len(outline) > MAX_OUTLINES:
            # Those in use are soon back.
            self.outlines.clear()
            self._outlines_size = 0
        self.outlines.add(outline)
        self._outlines_size += len(outline)


names = NameBudget()
"""The budget of this process."""


_tags = re.compile(rb"<[^>]*>").findall
# Not one that was cut at a `>` within the value of an attribute.
_whole_tag = re.compile(rb"""<[^"']*(?:(?:"[^"]*"|'[^']*')[^"']*)*""").fullmatch

# With a line feed for each character, which libxml2 drops, 59 are 118.
_white_texts = re.compile(rb">(\s{16,118})(?=<)").findall


class _Survey:
    """
    What of a body libxml2 would keep, told by expat, which keeps nothing.

    A search for names in the bytes would not do: libxml2 goes on after an error, and keeps names of what
    is no document at all, where nobody can say what it takes for a name.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.is_plain = True
        """Whether every `<` begins a tag."""
        self._depth = self._deepest = 0

    def read(self, body: bytes) -> None:
        """Raises MalformedError, ForbiddenError and TooComplexError."""
        parser = ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.ProcessingInstructionHandler = self._instruction
        parser.CommentHandler = parser.StartCdataSectionHandler = self._not_plain
        parser.StartDoctypeDeclHandler = self._document_type
        try:
            parser.Parse(body, True)
        except ExpatError as error:
            raise MalformedError(f"The message is not well-formed XML: {error}") from None
        except ValueError:
            raise MalformedError("The message has characters that are not UTF-8") from None
        if self._deepest > MAX_DEPTH:
            raise TooComplexError(f"The message has more than {MAX_DEPTH} elements within one another")
        self.names.update(text.decode() for text in _white_texts(body))

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._deepest = max(self._deepest, self._depth)
        self.names.add(name)
        for attribute, value in attributes.items():
            self.names.add(attribute)
            if attribute.startswith("xmlns"):
                self.names.add(value)

    def _end(self, _: str) -> None:
        self._depth -= 1

    def _instruction(self, target: str, _: str) -> None:
        self.is_plain = False
        self.names.add(target)

    def _not_plain(self, *_: object) -> None:
        self.is_plain = False

    def _document_type(self, *_: object) -> NoReturn:
        raise ForbiddenError("The message has a document type declaration (<!DOCTYPE), which SOAP forbids")


def local_name(tag: str) -> str:
    """An element's name without its namespace."""
    return tag.rpartition("}")[2]


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
    code = (code or "Receiver").rpartition(":")[2]
    return Fault(
        code=_SOAP_11_CODES.get(code, code),
        subcode=subcode,
        reason=reason,
        detail=detail,
    )
