"""What templates may say, what they make, what they may cost, and what is found wrong with them."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any
from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import ALL_STATES, Webhook
from cubehook.delivery import templates
from cubehook.delivery.samples import HOSTILE
from cubehook.delivery.templating.errors import TemplateError, TemplateErrors
from cubehook.delivery.templating.meter import MAX_SOURCE
from cubehook.delivery.templating.program import Program
from cubehook.events import CallEvent, CallState, ConnectionView, Direction, Notice, NoticeType, Outcome
from tests.delivery.fakes import call_event, webhook

NOTICE = Notice(
    type=NoticeType.CUBE_LOST,
    timestamp="2024-11-23T16:03:36.200940Z",
    event_id="64YBA8PFPXG05",
    data={"cube": "hq", "state": "silent", "reason": "no answer", "last_error": None},
)
LEG = ConnectionView("131", Direction.INCOMING, "ALERTING", "+12517676234", "1001", "CONN_SIP", None, None)


def with_template(source: str, **settings: Any) -> Webhook:
    return webhook(payload="template", template=source, **settings)


def made(source: str, told: CallEvent | Notice | None = None, **settings: Any) -> Any:
    """What a template makes of an event, as a receiver reads it."""
    body, content_type = templates.maker(with_template(source, **settings))(told or call_event())
    if content_type == "application/json":
        return json.loads(body)
    return parse_qsl(body.decode(), keep_blank_values=True)


def value(expression: str, told: CallEvent | Notice | None = None) -> Any:
    """What an expression is outside of quotes."""
    return made(f"[{{{{ {expression} }}}}]", told)[0]


class MadeTests(SynchronousTestCase):
    def test_inside_quotes_a_value_is_text_and_outside_it_is_json(self) -> None:
        source = (
            '{"text": "Call from {{ calling_number }}", "from": {{ calling_number }}, "n": {{ sequence }}}'
        )
        self.assertEqual({"text": "Call from +12517676234", "from": "+12517676234", "n": 1}, made(source))

    def test_null_is_null_outside_quotes_and_nothing_inside(self) -> None:
        event = call_event(calling_number=None)
        self.assertEqual([None, ""], made('[{{ calling_number }}, "{{ calling_number }}"]', event))

    def test_other_values_inside_quotes_are_as_json_writes_them(self) -> None:
        self.assertEqual(
            ["false 1 [] 1.5"], made('["{{ inferred }} {{ sequence }} {{ connections }} {{ 1.5 }}"]')
        )

    def test_the_body_is_compact_and_keeps_its_order_and_characters(self) -> None:
        make = templates.maker(with_template('{ "z" : 1,\n\n "a" : [ 1, "\u00fc x" ] }\n'))
        self.assertEqual('{"z":1,"a":[1,"\u00fc x"]}'.encode(), make(call_event())[0])

    @given(st.text(), st.sampled_from(["a", '\\"', "\\\\", "\\n", ""]))
    def test_no_text_from_outside_can_leave_its_place(self, text: str, before: str) -> None:
        event = call_event(calling_number=text)
        source = f'{{"quoted": "{before}{{{{ calling_number }}}}", "bare": {{{{ calling_number }}}}}}'
        expected = {"quoted": json.loads(f'"{before}"') + text, "bare": text}
        self.assertEqual(expected, made(source, event))

    @given(st.text())
    def test_no_text_can_leave_its_place_when_it_was_worked_on(self, text: str) -> None:
        event = call_event(calling_number=text)
        source = (
            '{"a": "{{ calling_number ~ \'"\' }}", "b": {{ \'"\' ~ calling_number }}, '
            '"c": "{{ calling_number | tojson }}", "d": {{ calling_number | tojson }}, '
            '"e": {{ calling_number | replace(\'x\', \'"\') | string }}, "f": {{ [calling_number] }}}'
        )
        self.assertEqual(
            {
                "a": text + '"',
                "b": '"' + text,
                "c": json.dumps(text, ensure_ascii=False),
                "d": text,
                "e": text.replace("x", '"'),
                "f": [text],
            },
            made(source, event),
        )

    def test_nesting(self) -> None:
        self.assertEqual([[[]]], made("[[[]]]"))
        made("[" * 100 + "]" * 100)

    def test_a_value_can_be_a_key(self) -> None:
        self.assertEqual({"hq": 1, "x hq": 2}, made('{ {{ cube }}: 1, "x {{ cube }}": 2}'))

    def test_quotes_are_followed_through_branches_and_loops(self) -> None:
        source = (
            '{"a": "{% if sequence == 1 %}one \\"{{ cube }}\\"{% else %}more{% endif %}", '
            '"legs": [{% for leg in connections %}{"to": {{ leg.called_number }}, "nr": "{{ loop.index }}"}'
            "{% if not loop.last %},{% endif %}{% endfor %}]}"
        )
        told = made(source, call_event(connections=[LEG, LEG]))
        self.assertEqual(
            {"a": 'one "hq"', "legs": [{"to": "1001", "nr": "1"}, {"to": "1001", "nr": "2"}]}, told
        )

    def test_every_key_of_full_can_be_looked_at_and_the_whole(self) -> None:
        event = call_event(connections=[LEG], outcome=Outcome.MISSED)
        keys = ", ".join(f'"{name}": {{{{ {name} }}}}' for name in CallEvent.__struct_fields__)
        self.assertEqual(made("{" + keys + "}", event), made("{{ event }}", event))
        self.assertEqual(list(CallEvent.__struct_fields__), list(made("{{ event }}")))
        self.assertEqual("missed", made("[{{ outcome }}]", event)[0])

    def test_set_with_and_conditions(self) -> None:
        self.assertEqual("b", value("'a' if sequence > 1 else 'b'"))
        self.assertEqual(["x"], made("{% set y = 'x' %}[{{ y }}]"))
        self.assertEqual([3], made("{% with y = 1 + 2 %}[{{ y }}]{% endwith %}"))
        self.assertEqual("Sales", value("{'+12512501663': 'Sales'}[called_number]"))
        self.assertEqual("?", value("{'1': 'Sales'}[called_number] | default('?')"))
        self.assertEqual([True, False], value("[called_number.startswith('+1'), cube.endswith('x')]"))
        self.assertEqual("1663", value("called_number[-4:]"))

    def test_line_breaks_of_any_kind(self) -> None:
        self.assertEqual({"a": 1}, made('{\r\n"a":\r1}\r\n'))


class FilterTests(SynchronousTestCase):
    def test_filters(self) -> None:
        event = call_event(talk_seconds=74.67, connected_at="2024-11-23T16:03:36.200940Z", connections=[LEG])
        for expression, expected in {
            "talk_seconds | duration": "1:15",
            "talk_seconds | round": 75,
            "talk_seconds | round(1)": 74.7,
            "talk_seconds | int": 74,
            "'12' | int + 1": 13,
            "'x' | int": 0,
            "called_number | number": "+1 251-250-1663",
            "called_number | number('national')": "(251) 250-1663",
            "connected_at | localtime('Europe/Berlin')": "2024-11-23 17:03:36",
            "connected_at | localtime('America/New_York', '%-d.%-m.%Y %H:%M %Z')": "23.11.2024 11:03 EST",
            "cube | upper": "HQ",
            "'HQ' | lower": "hq",
            "' x ' | trim": "x",
            "cube | replace('h', 'x')": "xq",
            "called_number | truncate(5)": "+125\u2026",
            "called_number | truncate(50)": "+12512501663",
            "connections | length": 1,
            "connections | count": 1,
            "connections | map(attribute='called_number') | join(', ')": "1001",
            "[1, 'a', none] | join('-')": "1-a-",
            "[1, 2] | first": 1,
            "[1, 2] | last": 2,
            "[] | first": None,
            "{'a': 1} | items": [["a", 1]],
            "guid | default('none')": "none",
            "'' | d('none')": "",
            "'' | default('none', true)": "none",
            "7 | string": "7",
            "'a&<b>' | slack": "a&amp;&lt;b&gt;",
            "cube | tojson": "hq",
        }.items():
            self.assertEqual(expected, value(expression, event), expression)

    def test_null_passes_through_filters(self) -> None:
        for name in ("duration", "number", "localtime('UTC')", "upper", "round", "replace('a', 'b')", "int"):
            self.assertIsNone(value(f"guid | {name}"), name)

    def test_tojson_is_json_and_not_escaped_for_html(self) -> None:
        make = templates.maker(with_template('[{{ "<\'&>" | tojson }}]'))
        self.assertEqual(b"""["<'&>"]""", make(call_event())[0])

    def test_what_a_filter_cannot_take_is_told_with_its_line(self) -> None:
        for expression, words in {
            "cube | duration": "seconds, such as talk_seconds",
            "cube | localtime('UTC')": "a time such as",
            "timestamp | localtime('Mars/Olympus')": "Mars/Olympus",
            "timestamp | localtime('../../etc/passwd')": "a time zone that is known",
            "timestamp | localtime('UTC', '%99999999d')": "%9",
            "called_number | number('spoken')": "international, national",
            "cube | upper(1, 2)": "other arguments for the filter upper",
            "cube | join": "a list",
            "cube | round": "a number",
            "cube | truncate('x')": "a whole number",
            "connections[4]": "long enough",
            "event.nothing | upper": "a key that is there",
            "cube + 1": "texts are joined by ~",
            "1 / 0": "no division by zero",
            "sequence.x": "an object",
            "calling_number < 3": "worked out",
        }.items():
            with self.assertRaises(TemplateError, msg=expression) as caught:
                value("\n" + expression)
            self.assertIn(words, caught.exception.expected)
            self.assertIn(caught.exception.line, (1, 2), expression)


class NoticeTests(SynchronousTestCase):
    def test_a_template_that_looks_at_the_notice_makes_it(self) -> None:
        source = "{% if notice %}{{ notice }}{% else %}{{ event }}{% endif %}"
        self.assertEqual("cube.lost", made(source, NOTICE)["type"])
        self.assertEqual("hq", made(source)["cube"])
        source = '{"what": "{{ notice.type if notice }}", "why": {{ (notice or {}).data.reason }}}'
        self.assertEqual({"what": "cube.lost", "why": "no answer"}, made(source, NOTICE))

    def test_of_a_notice_nothing_is_known_of_a_call(self) -> None:
        source = "[{{ notice.event_id }}, {{ timestamp }}, {{ call_state }}, {{ cube }}, {{ connections }}]"
        self.assertEqual([NOTICE.event_id, NOTICE.timestamp, None, None, []], made(source, NOTICE))

    def test_the_summary_is_there_for_both(self) -> None:
        source = '{"text": "{{ summary }}"}'
        self.assertEqual({"text": "Cube hq is lost: no answer"}, made(source, NOTICE))
        self.assertIn("Call from +1 251-767-6234", made(source)["text"])

    def test_a_template_of_calls_alone_leaves_notices_plain(self) -> None:
        self.assertEqual("cube.lost", made('{"a": {{ cube }}}', NOTICE)["type"])
        fields = dict(made('{"a": {{ cube }}}', NOTICE, encoding="form"))
        self.assertEqual(("cube.lost", "silent"), (fields["type"], fields["state"]))


class FormTests(SynchronousTestCase):
    def test_an_object_is_posted_as_a_form(self) -> None:
        source = '{"caller": {{ calling_number }}, "g": {{ guid }}, "i": {{ inferred }}, "s": {{ sequence }}}'
        make = templates.maker(with_template(source, encoding="form"))
        self.assertEqual(
            (b"caller=%2B12517676234&g=&i=false&s=1", "application/x-www-form-urlencoded"),
            make(call_event()),
        )

    def test_a_text_comes_back_from_a_form_as_it_was(self) -> None:
        event = call_event(calling_number=HOSTILE)
        self.assertEqual([("a&=", HOSTILE)], made('{"a&=": {{ calling_number }}}', event, encoding="form"))

    def test_only_a_flat_object_is_a_form(self) -> None:
        for source, words in {
            "[1]": "an object with the fields of the form",
            '{"a": {"b": 1}}': "as a: a form is flat",
            '{"a": [1]}': "as a: a form is flat",
        }.items():
            ((key, expected),) = templates.check(with_template(source, encoding="form"))
            self.assertEqual("template", key)
            self.assertIn(words, expected)


def ten(inside: str, deep: int) -> str:
    """`inside`, done ten times to the power of `deep`."""
    loops = "".join(f"{{% for n{each} in [0,1,2,3,4,5,6,7,8,9] %}}" for each in range(deep))
    return loops + inside + "{% endfor %}" * deep


LONG = "a" * 12_000
WORK, TEXTS, VALUES, OUTPUT = "less work", "texts of at most", "values of at most", "a payload of at most"
NUMBERS = "numbers on both sides"
BOMBS = {
    "nested loops": (ten("", 9), WORK),
    "what a loop does": (ten("{% if cube %}{% endif %}" * 100, 3), WORK),
    "output": (ten("x" * 500, 3), OUTPUT),
    "values": (ten("{{ cube }}", 5), WORK),
    "filters": (ten("{{ cube | upper | lower | trim }}", 5), WORK),
    "filters that take long": (ten("{{ timestamp | localtime('UTC') }}", 3), WORK),
    "long texts": (f"{{% set s = '{LONG}' %}}" + ten("{% if s | upper %}{% endif %}", 3), WORK),
    "comparisons": (f"{{% set s = '{LONG}' %}}" + ten("{% if s == 'x' %}{% endif %}", 3), WORK),
    "searches": (f"{{% set s = '{LONG}' %}}" + ten("{% if 'ab' in s %}{% endif %}", 3), WORK),
    "tests": (f"{{% set s = '{LONG}' %}}" + ten("{% if s is eq 'x' %}{% endif %}", 3), WORK),
    "tested with": (f"{{% set s = '{LONG}' %}}" + ten("{% if 'x' is eq s %}{% endif %}", 3), WORK),
    "ends": (f"{{% set s = '{LONG}' %}}" + ten("{% if s.endswith('x') %}{% endif %}", 3), WORK),
    "beginnings": (f"{{% set s = '{LONG}' %}}" + ten("{% if 'x'.startswith(s) %}{% endif %}", 3), WORK),
    "filters of long texts": (f"{{% set s = '{LONG}' %}}" + ten("{% if s | last %}{% endif %}", 3), WORK),
    "texts of lists": (f"{{% set s = '{LONG}' %}}{{% set x = [s,s,s,s,s,s] | string %}}", TEXTS),
    "slices": (f"{{% set s = '{LONG}' %}}" + ten("{% set t = s[1:] %}", 3), WORK),
    "keys": (f"{{% set s = '{LONG}' %}}" + ten("{% if {}[s] is defined %}{% endif %}", 3), WORK),
    "doubled texts": ("{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}", TEXTS),
    "added texts": ("{% set x = 'ab' %}" + "{% set x = x + x %}" * 60 + "{{ x }}", TEXTS),
    "added lists": ("{% set x = [1] %}" + "{% set x = x + x %}" * 60 + "{{ x }}", VALUES),
    "doubled lists": ("{% set x = [1] %}" + "{% set x = [x, x] %}\n" * 60 + "{{ x }}", VALUES),
    "doubled tuples": ("{% set x = (1, 1) %}" + "{% set x = (x, x) %}\n" * 60 + "{{ {x: 1} }}", VALUES),
    "doubled objects": ("{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}\n" * 60 + "{{ x }}", VALUES),
    "squared numbers": ("{% set x = 99 %}" + "{% set x = x * x %}" * 60 + "{{ x }}", "numbers below"),
    "multiplied text": ("{{ 'a' * 10000000000 }}", NUMBERS),
    "multiplied list": ("{{ [1] * 10000000000 }}", NUMBERS),
    "width of a format": ("{{ '%9999999999d' % 3 }}", NUMBERS),
    "replacement": (f"{{{{ '{'a' * 6000}' | replace('a', '{'b' * 6000}') }}}}", TEXTS),
    "separator": (f"{{{{ [{'1,' * 900}] | join('{'b' * 6000}') }}}}", TEXTS),
    "time format": ("{{ timestamp | localtime('UTC', '%9999999999Y') }}", "directives such as"),
}
REFUSED = {
    "{{ 2 ** 99999999999 }}": "**",
    "{{ 'a' | center(10000000000) }}": "center",
    "{{ '%s' | format(3) }}": "format",
    "{{ '{:9999999999}'.format(3) }}": "functions cannot be called",
    "{{ range(1000000000) }}": "functions cannot be called",
    "{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}": "recursive",
    "{% macro f() %}{{ f() }}{% endmacro %}": "macro",
    "{% include 'x' %}": "{% include %}",
    "{% import 'x' as x %}": "{% import %}",
    "{% from 'x' import y %}": "{% from %}",
    "{% extends 'x' %}": "{% extends %}",
    "{% block x %}{% endblock %}": "{% block %}",
    "{% call x() %}{% endcall %}": "{% call %}",
    "{% filter upper %}x{% endfilter %}": "{% filter %}",
    "{% set x %}x{% endset %}": "a block cannot be set",
    "{% set ns.x = 1 %}": "namespaces",
    "{% autoescape true %}{% endautoescape %}": "{% autoescape %}",
    "{{ cube | upper(*[1]) }}": "without *",
    "{{ self.x }}": "not self",
    "{{ cycler }}": "not cycler",
    "{{ lipsum }}": "not lipsum",
    "{{ cube | attr('upper') }}": "attr",
    "{{ cube | safe }}": "safe",
    "{{ cube is filter }}": "test",
    "{% do x %}": "unknown tag 'do'",
    "{% for x in %}": "a Jinja2 template",
    "{% if 1 %}": "a Jinja2 template",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": "simpler",
    "{{ 1" + " + 1" * 100 + " }}": "inside each other",
    "{{ 1" + " + 1" * 3000 + " }}": "simpler",
    ten("x", 30): "a simpler template",
    "x" * (MAX_SOURCE + 1): "at most 16,384 characters",
}


class FenceTests(SynchronousTestCase):
    timeout = 60

    def test_bombs_are_stopped(self) -> None:
        for name, (source, words) in BOMBS.items():
            self.assertLessEqual(len(source), MAX_SOURCE, name)
            make = templates.maker(with_template(source))
            tracemalloc.start()
            try:
                with self.assertRaises(TemplateError, msg=name) as caught:
                    make(call_event())
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertIn(words, caught.exception.expected, name)
            self.assertLess(peak, 4_000_000, name)
            if words == VALUES and "\n" in source:
                # Where it is made, and not only where it is used.
                assert caught.exception.line is not None
                self.assertLess(caught.exception.line, 60, name)

    def test_an_event_that_is_too_large_is_not_written(self) -> None:
        with self.assertRaises(TemplateError) as caught:
            made('"{{ calling_number }}"', call_event(calling_number="1" * 70_000))
        self.assertIn(TEXTS, caught.exception.expected)

    def test_what_is_refused_is_refused_before_it_runs(self) -> None:
        for source, words in REFUSED.items():
            with self.assertRaises(TemplateErrors, msg=source[:60]) as caught:
                Program(source, templates.NAMES)
            self.assertIn(words, str(caught.exception), source[:60])

    def test_nothing_of_python_can_be_reached(self) -> None:
        for expression in (
            "cube.__class__",
            "''.__class__.__mro__",
            "cube['__class__']",
            "event.keys",
            "event['__class__']",
            "event.__init__.__globals__",
            "connections.append",
            "sequence.bit_length",
            "cube.startswith",
            "[event] | map(attribute='__class__')",
            "(cube | tojson).join",
        ):
            with self.assertRaises(TemplateError, msg=expression):
                value(expression)
        with self.assertRaises(TemplateError):
            made("[{% for x in [1] %}{{ loop._iterable }}{% endfor %}]")
        with self.assertRaises(TemplateError):
            made("[{% for x in [1] %}{{ loop }}{% endfor %}]")

    def test_a_call_of_many_legs_is_not_too_much(self) -> None:
        event = call_event(connections=[LEG] * 200)
        source = (
            "[{% for leg in connections %}{% for key, value in leg | items %}"
            '"{{ key }}={{ value | string | upper }}",{% endfor %}{% endfor %} {{ event }}, {{ summary }}]'
        )
        self.assertEqual(200 * 8 + 2, len(made(source, event)))

    def test_an_event_cannot_be_changed(self) -> None:
        event = call_event(connections=[LEG])
        make = templates.maker(with_template("{% set cube = 'x' %}[{{ cube }}, {{ event.cube }}]"))
        self.assertEqual(make(event), make(event))
        self.assertEqual(["x", "hq"], json.loads(make(event)[0]))


NO_COMMA = "no comma after the last of a list or object"


class CheckTests(SynchronousTestCase):
    def expected(self, source: str, **settings: Any) -> list[str]:
        found = templates.check(with_template(source, **settings))
        self.assertEqual({"template"}, {key for key, _ in found})
        return [expected for _, expected in found]

    def test_good_templates(self) -> None:
        for source in (
            '{"text": "{{ summary }}"}',
            "{{ event }}",
            '{"to": {{ called_number | number | upper }}}',
            '{"when": "{{ connected_at | localtime("Europe/Berlin") }}"}',
        ):
            self.assertEqual([], templates.check(with_template(source)))

    def test_unknown_names_are_all_told_with_what_was_meant(self) -> None:
        source = '{\n"a": {{ calling_numbr }},\n"b": {{ cube | uper }},\n"c": {{ cube is strng }}}'
        self.assertEqual(
            [
                "a known name, perhaps calling_number, and not calling_numbr (line 2)",
                "a known filter, perhaps upper, and not uper (line 3)",
                "a known test, perhaps string, and not strng (line 4)",
            ],
            self.expected(source),
        )
        self.assertEqual([2, 3, 4], [each.line for each in templates.mistakes(with_template(source))])

    def test_unknown_keys_are_told_with_what_was_meant(self) -> None:
        (expected,) = self.expected("[\n{{ event.caled_number }}]")
        self.assertIn("perhaps called_number, and not caled_number (line 2, for ", expected)

    def test_a_name_that_is_not_always_set(self) -> None:
        (expected,) = self.expected("{% if call_state == 'ALERTING' %}{% set x = 1 %}{% endif %}\n[{{ x }}]")
        self.assertEqual("a name that is set, and not x (line 2, for an answered call)", expected)

    def test_what_only_fails_for_a_withheld_caller(self) -> None:
        (expected,) = self.expected('[{% if calling_number.startswith("+1") %}1{% endif %}2]')
        self.assertIn("for a withheld caller", expected)

    def test_what_only_fails_for_states_that_are_not_asked_for(self) -> None:
        source = "[{{ {'CONNECTED': 1}[call_state] }}]"
        self.assertEqual([], templates.check(with_template(source, states=(CallState.CONNECTED,))))
        self.assertNotEqual([], templates.check(with_template(source, states=ALL_STATES)))

    def test_json_errors_tell_line_and_column(self) -> None:
        for source, expected in {
            '{\n"a": {{ cube }}\n  "b": 1\n}': "a comma, or the end of the list or object (line 3, column 3",
            '{\n  "a": 1,\n  "b": 2,\n}': NO_COMMA + " (line 3, column 9",
            "[{% if cube %}1 , {% endif %}]": NO_COMMA + " (line 1, column 17",
            "[{% for x in [1, 2] %}{{ x }},{% endfor %}]": NO_COMMA + " (line 1, for",
            '{"a": }': "a value (line 1, column 7",
            '{"a" 1}': "a colon after the key (line 1, column 6",
            '{"a": "x\ny"}': r"\n for a line break inside a text, \t for a tab (line 1, column 9",
            '{"a": "{{ cube }}}': "the end of the text that begins here (line 1, column 7",
            "{{ cube }} x": "nothing after its end (line 1, column 12",
            "{a: 1}": "a key in double quotes (line 1, column 2",
            r'["\x"]': "no such backslash; one itself is written twice (line 1, column 3",
        }.items():
            found = self.expected(source)[0]
            self.assertTrue(found.startswith(f"JSON: {expected}"), found)

    def test_json_errors_at_values_tell_the_line(self) -> None:
        (expected,) = self.expected("[1,\n2\n{{ cube }}]")
        self.assertEqual(
            "JSON: a comma, or the end of the list or object (line 3, for an answered call)", expected
        )

    def test_lines_may_end_in_any_way(self) -> None:
        for end in ("\n", "\r\n", "\r"):
            found = self.expected(f"[1,{end}{{{{ cube }}}} 2]")[0]
            self.assertIn("(line 2, column 12, for", found, repr(end))

    def test_what_json_does_not_have(self) -> None:
        for source, words in {
            "": "JSON, and not nothing",
            "{# nothing #}": "JSON, and not nothing",
            "[NaN]": "not NaN",
            "[1e999]": "not too great",
            r'["\ud800"]': "surrogate",
            '{"a": 1, "a": 2}': "not a twice",
            '["\\{{ cube }}"]': "no backslash before a value (line 1",
            "[" * 5000 + "]" * 5000: "not nested so deeply",
            '{"a":' * 100 + "1" + "}" * 100: "not nested so deeply",
            "9" * 6000: "fewer digits",
        }.items():
            self.assertIn(words, self.expected(source)[0])

    def test_a_webhook_that_asks_for_notices_says_what_becomes_of_them(self) -> None:
        (expected,) = self.expected('{"a": {{ cube }}}', notices=(NoticeType.CUBE_LOST,))
        self.assertIn("notices", expected)
        for source in ('{"a": {{ summary }}}', "{% if notice %}{{ notice }}{% else %}[]{% endif %}"):
            self.assertEqual([], templates.check(with_template(source, notices=tuple(NoticeType))))

    def test_notices_are_tried_too(self) -> None:
        (expected,) = self.expected(
            "[{{ summary }}, {% if notice %}{{ notice.data.why }}{% else %}1{% endif %}]",
            notices=(NoticeType.CUBE_LOST, NoticeType.WEBHOOK_DISABLED),
        )[:1]
        self.assertIn("and not why (line 1, for a notice of cube.lost)", expected)

    def test_what_goes_together(self) -> None:
        good = '{"a": 1}'
        for settings, found in (
            ({}, None),
            ({"encoding": "form"}, None),
            ({"payload": "full"}, None),
            ({"payload": "full", "encoding": "form"}, "encoding"),
            ({"template": good}, "payload"),
            ({"preset": "slack"}, "payload"),
            ({"payload": "full", "preset": "form"}, "payload"),
            ({"payload": "template"}, "template"),
            ({"payload": "template", "template": good}, None),
            ({"payload": "template", "template": good, "encoding": "form"}, None),
            ({"payload": "template", "template": good, "preset": "form"}, "preset"),
            ({"payload": "template", "preset": "form"}, None),
            ({"payload": "template", "preset": "form", "encoding": "form"}, None),
            ({"payload": "template", "preset": "slack"}, None),
            ({"payload": "template", "preset": "teams", "encoding": "form"}, "encoding"),
        ):
            keys = [key for key, _ in templates.check(webhook(**settings))]
            self.assertEqual([found] if found else [], keys, str(settings))

    def test_no_mistake_repeats_the_text_of_a_template(self) -> None:
        for source in ('{"token": "hunter2",}', '{"token": "hunter2" "x": {{ cube }}', '{"hunter2\n": 1}'):
            self.assertNotIn("hunter2", str(self.expected(source)))
