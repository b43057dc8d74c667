"""The alert rules fire when they should, and the dashboard asks for what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
ETC = ROOT / "etc"
RULES = ETC / "prometheus" / "cubehook.rules.yml"
TESTS = ETC / "prometheus" / "cubehook.rules.test.yml"
SCRAPE = ETC / "prometheus" / "prometheus.yml"
DASHBOARD = ETC / "grafana" / "cubehook.json"

_NAME = re.compile(r"\b(?:cubehook|process)_[a-z_]+\b")


def names(expressions: list[str]) -> set[str]:
    """The names of metrics in PromQL."""
    return {name for expression in expressions for name in _NAME.findall(expression)}


def rule_expressions() -> list[str]:
    """What the alert rules ask for."""
    found = re.findall(r"(?m)^        expr: (>-\n(?:          .*\n)+|.*\n)", RULES.read_text("utf-8"))
    return [" ".join(each.removeprefix(">-").split()) for each in found]


def alerts() -> list[str]:
    return re.findall(r"(?m)^      - alert: (\w+)$", RULES.read_text("utf-8"))


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for each in dashboard()["panels"] for panel in (each, *each.get("panels", ()))]


def dashboard_expressions() -> list[str]:
    """What the dashboard's panels and variables ask for, as Prometheus is asked it."""
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    for variable in dashboard()["templating"]["list"]:
        match = re.fullmatch(r"label_values\((.*), \w+\)", variable.get("definition", ""))
        asked += [match[1]] if match else []
    return [each.replace("$__rate_interval", "5m") for each in asked]


class RuleTests(SynchronousTestCase):
    def promtool(self, *arguments: str) -> str:
        program = shutil.which("promtool")
        if program is None:
            self.skipTest("promtool is not installed (Debian's package prometheus has it)")
        ran = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        return ran.stdout

    def test_the_rules_and_the_scrape_configuration_are_well_formed(self) -> None:
        self.assertIn(f"{len(alerts())} rules found", self.promtool("check", "config", str(SCRAPE)))

    def test_the_rules_fire_when_they_should(self) -> None:
        self.promtool("test", "rules", str(TESTS))

    def test_every_alert_is_tried_both_ways(self) -> None:
        text = TESTS.read_text("utf-8")
        for alert in alerts():
            self.assertRegex(text, rf"alertname: {alert}, exp_alerts: \[\]", "it is silent")
            self.assertRegex(text, rf"alertname: {alert}\n +exp_alerts:\n", "it fires")

    def test_every_alert_says_how_bad_it_is_and_what_to_do(self) -> None:
        rules = RULES.read_text("utf-8").split("      - alert: ")[1:]
        told = re.findall(r"(?m)^### (Cubehook\w+)$", (ROOT / "docs" / "operations.md").read_text("utf-8"))
        self.assertEqual(told, alerts(), "docs/operations.md has a runbook for each, in their order")
        for rule in rules:
            name = rule.partition("\n")[0]
            self.assertRegex(rule, r"(?m)^          severity: (critical|warning)$", name)
            self.assertRegex(rule, r"(?m)^          summary: \S", name)
            self.assertRegex(rule, r"(?m)^          description: \S", name)
            self.assertIn(f"runbook: docs/operations.md#{name.lower()}\n", rule)

    def test_what_the_dashboard_asks_is_promql(self) -> None:
        rules = [
            {"record": f"panel:{number}", "expr": expression}
            for number, expression in enumerate(dashboard_expressions())
        ]
        path = Path(self.mktemp())
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        self.assertIn(f"{len(rules)} rules found", self.promtool("check", "rules", str(path)))


class DashboardTests(SynchronousTestCase):
    def test_panels_have_ids_titles_and_places_of_their_own(self) -> None:
        ids = [panel["id"] for panel in panels()]
        self.assertEqual(len(ids), len(set(ids)))
        rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
        self.assertEqual(rows, ["Calls", "Gateways", "Deliveries", "Store", "Process"])
        taken: set[tuple[int, int]] = set()
        for panel in panels():
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertTrue(panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            self.assertEqual(cells & taken, set(), panel["title"])
            taken |= cells

    def test_variables_are_used_and_defined(self) -> None:
        defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels()))) - {"__rate_interval"}
        self.assertEqual(used, defined)
        self.assertTrue(defined >= {"cube", "webhook"})
