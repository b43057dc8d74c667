"""Envelopes and faults, and what the parser refuses."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench.parse import CALL, notification
from cubehook.xcc import codec, soap
from cubehook.xcc.messages import Fault, UnknownMessage
from tests.xcc.test_codec import ALERTING, STATUS

HEAD = '<S:Envelope xmlns:S="http://www.w3.org/2003/05/soap-envelope"><S:Body>'
TAIL = "</S:Body></S:Envelope>"


def within(content: str) -> bytes:
    return f"{HEAD}{content}{TAIL}".encode()


def xcc(content: str, attributes: str = "") -> bytes:
    return within(f'<NotifyXccFuture xmlns="{soap.XCC}" {attributes}>{content}</NotifyXccFuture>')


class ParseTests(SynchronousTestCase):
    def setUp(self) -> None:
        # What a test spends is not to be missed in another.
        self.patch(soap, "names", soap.NameBudget())

    def refused(self, body: bytes, error: type[soap.SoapError]) -> soap.SoapError:
        """`body` is refused with just this error, in little time, and the fault about it can be sent."""
        started = time.process_time()
        caught: soap.SoapError = self.assertRaises(soap.SoapError, codec.read, body)
        self.assertLess(time.process_time() - started, 0.5)
        self.assertIs(type(caught), error, caught)
        answer = codec.write(caught.fault())
        self.assertLess(len(answer), 3000)
        self.assertEqual(codec.read(answer), caught.fault())
        return caught

    def accepted(self, body: bytes) -> None:
        message = codec.read(body)
        self.assertIsInstance(message, UnknownMessage)
        self.assertEqual(codec.name(message), "unknown")

    def test_malformed(self) -> None:
        good = xcc("")
        for body in (
            b"",
            b" \r\n",
            b"GET / HTTP/1.1",
            b'{"a": 1}',
            good[:-1],
            good[1:],
            good + b"junk",
            good + good,
            good + b"\0",
            xcc("<a></b>"),
            xcc("<a>"),
            xcc("&nbsp;"),
            xcc("&#0;"),
            xcc("&#xD800;"),
            xcc("\x01"),
            xcc("\0"),
            xcc("<a b=c/>"),
            xcc('<a b="1" b="2"/>'),
            xcc("<![CDATA[ "),
            xcc("<!-- -- -->"),
            b" <?xml version='1.0'?>" + good,
            b"\0" * 1000,
        ):
            self.refused(body, soap.MalformedError)

    def test_bytes_that_are_not_utf_8(self) -> None:
        for junk in (
            b"\xff",
            b"\xc3",
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf5\x80\x80\x80",
            b"\xef\xbf\xbf",
            b"\xe9",
        ):
            self.refused(xcc("JUNK").replace(b"JUNK", junk), soap.MalformedError)

    def test_a_declared_encoding_does_not_count(self) -> None:
        for declared in ("UTF-8", "utf8", "UTF-16", "ISO-8859-1", "cp037", "UTF-7", "x-no-such"):
            declaration = f'<?xml version="1.0" encoding="{declared}"?>'.encode()
            self.accepted(declaration + xcc("\u00e9"))
            self.refused(declaration + xcc("").replace(b"></N", b">\xe9</N"), soap.MalformedError)

    def test_byte_order_marks(self) -> None:
        self.accepted(b"\xef\xbb\xbf" + xcc(""))
        for encoding in ("utf-16-le", "utf-16-be"):
            text = '\ufeff<?xml version="1.0" encoding="UTF-16"?>' + xcc("\u00e9\U0001f600").decode()
            body = text.encode(encoding)
            self.accepted(body)
            self.refused(body[:-1], soap.MalformedError)
            self.refused(body[2:], soap.MalformedError)
            self.refused(
                body + b"\xd8\x00\xd8\x00"[:: 1 if encoding == "utf-16-be" else -1], soap.MalformedError
            )
        self.refused(xcc("").decode().encode("utf-32"), soap.MalformedError)

    def test_document_types_and_entities(self) -> None:
        laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
        for declaration in (
            "<!DOCTYPE a>",
            "<!DOCTYPE a []>",
            '<!DOCTYPE a SYSTEM "http://192.0.2.1/x.dtd">',
            '<!DOCTYPE a PUBLIC "-//W3C//DTD XHTML 1.0//EN" "http://192.0.2.1/x.dtd">',
            f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]>',
            f'<!DOCTYPE a [<!ENTITY b "{"x" * 100_000}">]>',
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE a [<!ENTITY % b SYSTEM "http://192.0.2.1/"> %b;]>',
            '<!-- first -->\n<?first?><!DOCTYPE\ta [<!ATTLIST a b CDATA "c">]>',
        ):
            body = (declaration + xcc("&l11;&b;&b;&b;").decode()).encode()
            self.assertEqual(self.refused(body, soap.ForbiddenError).word, "forbidden")
            self.refused(body.decode().encode("utf-16"), soap.ForbiddenError)

    def test_the_name_of_a_document_type_is_only_text_elsewhere(self) -> None:
        self.accepted(xcc("<![CDATA[<!DOCTYPE a>]]><!-- <!DOCTYPE a> -->&lt;!DOCTYPE a>"))

    def test_too_large(self) -> None:
        filler = soap.MAX_BODY - len(xcc(""))
        self.accepted(xcc("x" * filler))
        error = self.refused(xcc("x" * (filler + 1)), soap.TooLargeError)
        self.assertEqual((error.status, error.word), (413, "too_large"))
        self.assertIn(str(soap.MAX_BODY), str(error))

    def test_too_deep(self) -> None:
        # Three are the envelope's and the message's.
        within_limit = soap.MAX_DEPTH - 3
        self.accepted(xcc("<a>" * within_limit + "</a>" * within_limit))
        too_deep = "<a>" * (within_limit + 1) + "</a>" * (within_limit + 1)
        self.assertEqual(self.refused(xcc(too_deep), soap.TooComplexError).status, 413)
        self.refused(xcc("<a>" * 4000 + "</a>" * 4000), soap.TooComplexError)
        self.refused(xcc("<a>" * 8000), soap.MalformedError)
        self.refused(xcc("<a>" * 300_000), soap.TooComplexError)

    def test_many_elements_side_by_side_are_not_deep(self) -> None:
        self.accepted(xcc("<a></a>" * 4000))

    def test_too_many_elements(self) -> None:
        self.accepted(xcc("<a/>" * 8000))
        self.refused(xcc("<a/>" * 8192), soap.TooComplexError)
        self.refused(xcc("<a/>" * 200_000), soap.TooComplexError)

    def test_too_many_attributes(self) -> None:
        self.accepted(xcc("", " ".join(f'a{n}=""' for n in range(4000))))
        self.refused(xcc("", " ".join(f'a{n}=""' for n in range(100_000))), soap.TooComplexError)
        self.refused(xcc("", " ".join(f'xmlns:a{n}="u"' for n in range(50_000))), soap.TooComplexError)

    def test_a_long_namespace(self) -> None:
        children = "".join(f"<a{n}/>" for n in range(4000))
        self.refused(within(f'<a xmlns="{"u" * 900_000}">{children}</a>'), soap.TooComplexError)

    def test_long_things_are_taken_at_once(self) -> None:
        long = 1_000_000
        for content in (
            "&#65;" * (long // 5),
            "\n" * long,
            "&amp;" * (long // 5),
            f"<!--{'-x' * (long // 2)}-->",
        ):
            started = time.process_time()
            self.accepted(xcc(content))
            self.assertLess(time.process_time() - started, 0.5)
        for name in ("a" * long, "\U0001f600" * (long // 4)):
            self.refused(f"<{name}".encode(), soap.MalformedError)
        self.refused(b"<a b='" + b"x" * long, soap.MalformedError)
        self.refused(b"<" * 8000 + b"x" * long, soap.MalformedError)

    def test_a_long_name(self) -> None:
        self.accepted(xcc(f"<{'a' * soap.MAX_NAME}/>"))
        self.refused(xcc(f"<{'a' * (soap.MAX_NAME + 1)}/>"), soap.TooComplexError)
        self.refused(f"<{'a' * 900_000}/>".encode(), soap.TooComplexError)

    def test_what_was_received_is_cut_in_the_words_about_it(self) -> None:
        names = "".join(f"<a{'x' * 200}{n}:b/>" for n in range(20))
        self.assertLess(len(str(self.refused(within(names), soap.NamespaceError))), 400)

    def test_comments_and_processing_instructions_are_ignored(self) -> None:
        body = b"<?a b?><!-- c -->" + xcc("").replace(
            b"<S:Body>", b"<?a?><!-- c --> text <S:Body><!-- d --><?e?>"
        )
        self.accepted(body + b"<!-- e --><?f?>\n")

    def test_what_is_not_soap(self) -> None:
        page = b"<html><head><title>Log in</title></head><body/></html>"
        error = self.refused(page, soap.NotSoapError)
        self.assertIn("html", str(error))
        self.assertEqual((error.word, error.tag), ("not_soap", "html"))
        self.refused(f'<NotifyXccCallData xmlns="{soap.XCC}"/>'.encode(), soap.NotSoapError)

    def test_envelopes(self) -> None:
        self.accepted(xcc("").replace(soap.SOAP_12.encode(), soap.SOAP_11.encode()))
        self.accepted(
            xcc("").replace(b"<S:Body>", b"<S:Header><a:b xmlns:a='c'><S:Body/></a:b></S:Header><S:Body>")
        )
        plain = xcc("").replace(b"S:", b"").replace(b"xmlns:S", b"xmlns").replace(b":S=", b"=")
        self.accepted(plain)
        error = self.refused(xcc("").replace(b"2003/05", b"2001/12"), soap.NamespaceError)
        self.assertEqual((error.word, error.reason), ("namespace", "Unknown namespace received"))
        self.refused(xcc("").replace(b"xmlns:S", b"xmlns:T"), soap.NamespaceError)
        other = xcc("").replace(b"<S:Body", b"<S:Body xmlns:S='other'")
        self.assertEqual(
            str(self.refused(other, soap.MissingElementError)),
            "The element Envelope/Body is missing or empty",
        )

    def test_a_body_without_a_message(self) -> None:
        for body, path in (
            (within(""), "Envelope/Body/*"),
            (within(" text <!-- a --> "), "Envelope/Body/*"),
            (within("").replace(b"Body", b"Bodice"), "Envelope/Body"),
        ):
            error = self.refused(body, soap.MissingElementError)
            assert isinstance(error, soap.MissingElementError)
            self.assertEqual((error.path, error.word), (path, "missing_element"))

    def test_the_namespace_of_a_message(self) -> None:
        for declaration in (
            "",
            'xmlns=""',
            'xmlns="http://www.cisco.com/schema/cisco_xmf/v1_0"',
            f'xmlns:x="{soap.XCC}"',
        ):
            self.refused(within(f"<NotifyXccCallData {declaration}/>"), soap.NamespaceError)
        self.refused(within("<x:NotifyXccCallData/>"), soap.NamespaceError)

        message = f'<x:A xmlns:x="{soap.XCC}"/>'
        self.accepted(within(message))
        for around in (b"<S:Body", b"<S:Envelope"):
            declared = within("<x:A/>").replace(around, around + f' xmlns:x="{soap.XCC}"'.encode())
            self.accepted(declared)
            self.accepted(declared.replace(b"xmlns:x", b"xmlns").replace(b"x:A", b"A"))
        # The nearest declaration holds.
        self.accepted(within(message).replace(b"<S:Body", b'<S:Body xmlns:x="other"'))
        self.refused(
            within('<x:A xmlns:x="other"/>').replace(b"<S:Body", f'<S:Body xmlns:x="{soap.XCC}"'.encode()),
            soap.NamespaceError,
        )

    @given(st.binary(max_size=300))
    @settings(max_examples=300)
    def test_any_bytes(self, body: bytes) -> None:
        for whole in (body, b"\xff\xfe" + body, HEAD.encode() + body, HEAD.encode() + body + TAIL.encode()):
            try:
                codec.read(whole)
            except soap.SoapError as error:
                codec.write(error.fault())


SORTS: dict[str, tuple[Callable[[str, str], str], str]] = {
    "element": (lambda name, _: f"<{name}/>", "{}"),
    "attribute": (lambda name, _: f'<a {name}=""/>', "{}"),
    "attributes of one element": (lambda name, _: f' {name}=""', "<a {}/>"),
    "attribute and no value": (lambda name, _: f"<a {name}/>", "{}"),
    "attributes and no values": (lambda name, _: f" {name}", "<a {}/>"),
    "value": (lambda name, _: f'<a b="{name}"/>', "{}"),
    "value after a bracket": (lambda name, _: f'<a b=">" {name}=""/>', "{}"),
    "identity": (lambda name, _: f'<a xml:id="{name}"/>', "{}"),
    "prefix": (lambda name, _: f'<a xmlns:{name}="u"/>', "{}"),
    "element's prefix": (lambda name, _: f"<{name}:a/>", "{}"),
    "attribute's prefix": (lambda name, _: f'<a {name}:a=""/>', "{}"),
    "namespace": (lambda name, _: f'<a xmlns="{name}"/>', "{}"),
    "prefix's namespace": (lambda name, _: f'<a xmlns:b="{name}"/>', "{}"),
    "instruction": (lambda name, _: f"<?{name}?>", "{}"),
    "words of an instruction": (lambda name, _: f"<?a {name}?>", "{}"),
    "comment": (lambda name, _: f"<!--{name}-->", "{}"),
    "character data": (lambda name, _: f"<![CDATA[<{name}>]]>", "{}"),
    "tag after character data": (lambda name, _: f"<![CDATA[<a b='>]]><{name} c=''/>", "{}"),
    "entity": (lambda name, _: f"&{name};", "{}"),
    "entity in a value": (lambda name, _: f"&{name};", "<a b='{}'/>"),
    "end": (lambda name, _: f"<a></{name}>", "{}"),
    "end alone": (lambda name, _: f"</{name}>", "{}"),
    "after an error": (lambda name, _: f"<{name}/>", "<a></b><c>{}</c>"),
    "after the end": (lambda name, _: f"<{name}/>", "{}" + TAIL + "{}"),
    "tag without an end": (lambda name, _: f"<{name} ", "{}"),
    "white space before a tag": (lambda _, white: f"{white}<a/>", "{}"),
    "white space within an element": (lambda _, white: f"<a>{white}</a>", "{}"),
    "white space after character data": (lambda _, white: f"<![CDATA[]]>{white}<a/>", "{}"),
    "white space with carriage returns": (
        lambda _, white: f"<a>{white.replace(chr(10), chr(13) + chr(10))}</a>",
        "{}",
    ),
    "white space before text": (lambda _, white: f"<a>{white}x</a>", "{}"),
    "white space before a carriage return": (lambda _, white: f"<a>{white}\r\nx</a>", "{}"),
    "white space before more than ASCII": (lambda _, white: f"<a>{white}\u00e9</a>", "{}"),
    "white space after text": (lambda _, white: f"<a>\u00e9{white}</a>", "{}"),
    "white space after a reference": (lambda _, white: f"<a>&#32;{white}</a>", "{}"),
    "text with a bracket": (lambda name, _: f"<a> > {name}='' ></a>", "{}"),
    **{
        f"text of {length}": (lambda name, _, length=length: f"<a>{name[-length:]}</a>", "{}")  # type: ignore[misc]
        for length in (1, 2, 3, 4, 15, 16, 59, 60)
    },
}
"""What a peer may invent: one piece of a body, by a new name and a new white text, and what is around."""


def invented(sort: str, number: int) -> bytes:
    """A body with 1000 inventions of `sort`, others for each sort and `number`."""
    piece, around = SORTS[sort]
    first = (list(SORTS).index(sort) * 1000 + number) * 1000
    pieces = []
    for serial in range(first, first + 1000):
        white = f"{serial:040b}".replace("0", " ").replace("1", "\n")
        pieces.append(piece(f"n{'x' * 80}{serial}", white))
    return xcc(around.replace("{}", "".join(pieces)))


class NameBudgetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(soap, "names", soap.NameBudget())

    def read(self, body: bytes) -> soap.SoapError | None:
        try:
            codec.read(body)
        except soap.SoapError as error:
            return error
        return None

    def test_what_is_invented_does_not_fill_the_memory(self) -> None:
        if sys.platform != "linux":
            raise SkipTest("reads the size of the process where Linux tells it")
        grown = {}
        for sort in SORTS:
            self.patch(soap, "names", soap.NameBudget())
            # The tags around are known then, so that only what is within can be refused.
            self.assertIsNone(self.read(xcc("<a></a>")))
            bodies = [invented(sort, number) for number in range(30)]
            for body in bodies[:10]:
                self.read(body)
            before = kibibytes()
            for body in bodies[10:]:
                self.read(body)
            grown[sort] = kibibytes() - before
        # Kept, the names would be 20,000 of 90 bytes, and the white texts 20,000 of 40.
        self.assertEqual({sort: size for sort, size in grown.items() if size > 500}, {})

    def test_a_few_names_at_a_time(self) -> None:
        for number in range(soap.MAX_NEW_NAMES - 4):
            self.assertIsNone(self.read(xcc(f"<n{number}/>")))
        # The four left are the message's, the envelope's two and their prefix.
        error = self.read(xcc("<another/>"))
        assert error is not None
        self.assertIsInstance(error, soap.NewNamesError)
        self.assertEqual((error.status, error.word), (413, "new_names"))
        self.assertIn("new here (1)", str(error))
        # Those that came before still do, in bodies that were not seen, too, and so do those of XCC.
        self.assertIsNone(self.read(xcc("<n1>a</n1><n2 n3=''>&amp;</n2><n4\n/>")))
        for message in (STATUS, ALERTING):
            self.assertIsNone(self.read(message))

    def test_the_vocabulary_costs_nothing(self) -> None:
        self.patch(soap, "MAX_NEW_NAMES", 0)
        for body in (STATUS, ALERTING):
            self.assertIsNone(self.read(body))
        for event, _ in CALL:
            self.assertIsNone(self.read(codec.write(notification(event), line_breaks=True)))
        for fault in (soap.service_exception("a", text="b"), soap.xml_parser_error("a", tag="b", detail="c")):
            self.assertIsNone(self.read(codec.write(fault)))
        self.assertIsInstance(self.read(ALERTING.replace(b"alerting", b"alarming")), soap.NewNamesError)

    def test_bytes_in_all(self) -> None:
        body = xcc("".join(f"<n{n}{'x' * 200}/>" for n in range(600)))
        self.assertIsNone(self.read(body))
        self.assertIsNone(self.read(body))
        self.assertIsNone(self.read(body.replace(b"<n", b"<m")))
        self.assertIsInstance(self.read(body.replace(b"<n", b"<o")), soap.NewNamesError)
        self.assertIsNone(self.read(body))

    def test_a_refused_body_costs_nothing(self) -> None:
        many = "".join(f"<n{n}/>" for n in range(soap.MAX_NEW_NAMES))
        self.assertIsInstance(self.read(xcc(many)), soap.NewNamesError)
        self.assertIsInstance(self.read(xcc("<a/>" + many)[:-1]), soap.MalformedError)
        self.assertIsNone(self.read(xcc("<a/>")))

    def test_values_cost_nothing(self) -> None:
        for number in range(soap.MAX_NEW_NAMES + 100):
            self.assertIsNone(self.read(xcc(f"<a b='{number}'>{number}<!-- c{number} --></a>")))

    def outline(self, body: bytes) -> bytes | None:
        """What is remembered of `body`, None if nothing is."""
        before = set(soap.names.outlines)
        self.assertIsNone(self.read(body))
        new = soap.names.outlines - before
        return new.pop() if new else None

    def test_an_outline_has_all_but_texts(self) -> None:
        one = self.outline(xcc("<a b='c'> > \n1\t</a>\n <d/> 2 <e>\t</e>"))
        assert one is not None
        self.assertIn(b"<a b='c'></a>\n <d/><e>\t</e>", one)
        for same in ("<a b='c'>x</a>\n <d/><e>\t</e>", "<a b='c'></a>\n <d/>\r\n33<e>\t</e>"):
            self.assertIsNone(self.outline(xcc(same)))
        for other in (
            "<a b='d'>1</a>\n <d/><e>\t</e>",
            "<a b='c'>1</a> \n<d/><e>\t</e>",
            "<a b='c'>1</a>\n <d/><e>\t\t</e>",
            "<a b='c'>1\n <d/><e>\t</e></a>",
        ):
            self.assertIsNotNone(self.outline(xcc(other)), other)

    def test_a_familiar_outline_is_not_surveyed(self) -> None:
        self.assertIsNone(self.read(xcc("<a>1</a>")))
        self.patch(soap, "_Survey", None)
        self.assertIsNone(self.read(xcc("<a> 22</a>")))
        self.assertRaises(TypeError, codec.read, xcc("<a>&#32;</a>"))
        # Whatever stands in a text.
        for text in ("]]>", "\x01", "\ufffe", "\0", "1\0 "):
            self.assertIsInstance(self.read(xcc(f"<a>{text}</a>")), soap.MalformedError)

    def test_no_outline_hides_a_name(self) -> None:
        for body in (
            # The one that was cut would open a value in which the names of the next are text.
            """<a b=">" c='">'/>""",
            """<a b=">"/>""",
            """<a b="'>x"/>""",
            "<![CDATA[<made><up>]]>",
            "<!-- <as> <well> -->",
            "<?b <c>?>",
        ):
            self.assertIsNone(self.outline(xcc(body)), body)
        self.assertIsNotNone(self.outline(xcc("""<a b='"' c="'"/>""")))

    def test_outlines_are_bounded(self) -> None:
        for number in range(600):
            self.assertIsNone(self.read(xcc(f"<a b='{number}{'x' * 1000}'/>")))
            self.assertLessEqual(sum(map(len, soap.names.outlines)), soap.MAX_OUTLINES)
        latest = b"".join(soap.names.outlines)
        self.assertTrue(all(b"<a b='%d" % number in latest for number in range(500, 600)))
        self.assertIsNone(self.outline(xcc(f"<a b='{'x' * soap.MAX_OUTLINE}'/>")))


def kibibytes() -> int:
    """The size of this process."""
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * 4


class ErrorTests(SynchronousTestCase):
    def test_each_has_a_word_and_a_client_error(self) -> None:
        classes = soap.SoapError.__subclasses__()
        self.assertEqual(len({error.word for error in classes}), len(classes))
        for error in classes:
            self.assertIn(error.status, (400, 413))
            fault = error("a/b").fault() if error is not soap.TooLargeError else error(5).fault()
            self.assertEqual((fault.code, fault.subcode), ("Sender", "XML PARSER ERROR"))

    def test_the_element_at_fault_is_named(self) -> None:
        self.assertEqual(
            soap.MissingElementError("NotifyXccCallData/callData").fault(),
            Fault(
                code="Sender",
                subcode="XML PARSER ERROR",
                reason="An expected XML tag or sequence is missing",
                detail={
                    "errorXMLDetail": "The element NotifyXccCallData/callData is missing or empty",
                    "errorXMLTag": "callData",
                },
            ),
        )
        self.assertEqual(
            soap.UnsupportedError("RequestXccRegister").fault().detail["errorXMLTag"], "RequestXccRegister"
        )


class FaultTests(SynchronousTestCase):
    def test_a_service_exception_on_the_wire(self) -> None:
        fault = soap.service_exception(
            "Provider is in shutdown state",
            error_code="XCC:7",
            operation="RequestXccRegister",
            transaction_id="1:2",
            registration_id="4CA5E4:XCC:myapp:4",
            text="no shutdown is missing & <more>",
        )
        self.assertEqual(
            codec.write(fault).decode(),
            '<?xml version="1.0" encoding="UTF-8"?><SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope">'
            "<SOAP:Body><SOAP:Fault><SOAP:Code><SOAP:Value>SOAP:Receiver</SOAP:Value><SOAP:Subcode>"
            "<SOAP:Value>SERVICE EXCEPTION</SOAP:Value></SOAP:Subcode></SOAP:Code><SOAP:Reason>"
            '<SOAP:Text xml:lang="en">Provider is in shutdown state</SOAP:Text></SOAP:Reason><SOAP:Detail>'
            '<ServiceException xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0"><errorCode>XCC:7</errorCode>'
            "<operation>RequestXccRegister</operation><transactionID>1:2</transactionID>"
            "<registrationID>4CA5E4:XCC:myapp:4</registrationID>"
            "<text>no shutdown is missing &amp; &lt;more&gt;</text></ServiceException></SOAP:Detail>"
            "</SOAP:Fault></SOAP:Body></SOAP:Envelope>",
        )
        self.assertEqual(codec.read(codec.write(fault)), fault)

    def test_an_xml_parser_error_on_the_wire(self) -> None:
        fault = soap.xml_parser_error(
            "Badly framed XML received", code="Receiver", detail="line 1", message="<a>", tag="a"
        )
        content = codec.write(fault).decode()
        self.assertIn("<SOAP:Value>SOAP:Receiver</SOAP:Value>", content)
        self.assertIn("<SOAP:Value>XML PARSER ERROR</SOAP:Value>", content)
        self.assertIn(
            '<SOAP:Detail><XMLParserError xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0">'
            "<errorXMLDetail>line 1</errorXMLDetail><errorXMLMsg>&lt;a&gt;</errorXMLMsg>"
            "<errorXMLTag>a</errorXMLTag></XMLParserError></SOAP:Detail>",
            content,
        )
        self.assertEqual(codec.read(codec.write(fault)), fault)

    def test_no_detail(self) -> None:
        fault = Fault(code="Receiver", reason="Away")
        self.assertNotIn(b"Detail", codec.write(fault))
        self.assertEqual(codec.read(codec.write(fault)), fault)

    def test_other_shapes_are_read(self) -> None:
        spread = within(
            "<S:Fault>\n<S:Detail>\n<p:XMLParserError xmlns:p='x'>\n<p:errorXMLTag>\n a\n</p:errorXMLTag>"
            "<b/>\n</p:XMLParserError></S:Detail><S:Reason>\n<S:Text xml:lang='de'> Nein </S:Text>\n"
            "<S:Text xml:lang='en'>No</S:Text></S:Reason>"
            "<S:Code>\n<S:Value>\n env:Sender </S:Value><S:Subcode> XML PARSER ERROR </S:Subcode></S:Code>"
            "</S:Fault>"
        )
        self.assertEqual(
            codec.read(spread),
            Fault(code="Sender", subcode="XML PARSER ERROR", reason="Nein", detail={"errorXMLTag": "a"}),
        )
        for code, expected in (("Client", "Sender"), ("Server", "Receiver")):
            old = within(
                f"<S:Fault><faultcode>S:{code}</faultcode><faultstring>Why</faultstring>"
                "<detail><ServiceException><errorCode>3</errorCode></ServiceException></detail></S:Fault>"
            ).replace(soap.SOAP_12.encode(), soap.SOAP_11.encode())
            self.assertEqual(codec.read(old), Fault(code=expected, reason="Why", detail={"errorCode": "3"}))
        self.assertEqual(codec.read(within("<S:Fault/>")), Fault(code="Receiver", reason=""))

    def test_only_soap_has_faults(self) -> None:
        self.assertRaises(soap.NamespaceError, codec.read, within("<Fault xmlns='other'/>"))
        self.assertIsInstance(codec.read(within(f"<Fault xmlns='{soap.XCC}'/>")), UnknownMessage)

    def test_what_cannot_be_written(self) -> None:
        for fault in (
            Fault(code="Sender/><x", reason="a"),
            Fault(code="Sender", reason="a\0"),
            Fault(code="Sender", reason="a", subcode="\x1b[31m"),
            Fault(code="Sender", reason="a", detail={"a b": "c"}),
            Fault(code="Sender", reason="a", detail={"a><b": "c"}),
            Fault(code="Sender", reason="a", detail={"a": "\ud800"}),
        ):
            self.assertRaises(ValueError, codec.write, fault)


class EscapeTests(SynchronousTestCase):
    def test_special_characters(self) -> None:
        self.assertEqual(soap.escape("a&b<c>d\re\"f'g]]>"), "a&amp;b&lt;c&gt;d&#13;e\"f'g]]&gt;")
        plain = "plain \u00e9\U0001f600\n\t\u0085\u2028"
        self.assertEqual(soap.escape(plain), plain)

    def test_characters_that_xml_has_not(self) -> None:
        for character in "\0\x01\x08\x0b\x0c\x0e\x1f\ud800\udfff\ufffe\uffff":
            self.assertIn(
                f"U+{ord(character):04X}", str(self.assertRaises(ValueError, soap.escape, f"a{character}&"))
            )
