"""docs/operations.md stays true: every warning, metric, reason and configuration in it is that of the code."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest
from broker import MOSQUITTO, mosquitto
from daemon_kit import ROOT, write_config
from health_kit import make_daemon

from picker.bundle import load_bundle
from streamer.broker import Broker, BrokerClient
from streamer.health import REASONS
from streamer.settings import load_settings

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LEVELS = frozenset({"warning", "error", "critical"})
MAKERS = {
    "counter": "_total",
    "add_counters": "_total",
    "add_gauge": "",
    "add_gauges": "",
    "Gauge": "",
    "Histogram": "",
}
"""Functions that make a metric of their first argument, and what the name of it ends with."""
LEAST_LETTERS = 8
"""Shorter pieces of a text that is put together say nothing by themselves."""


def strings(node: ast.expr) -> Iterator[str]:
    """Constant pieces of a text, of both sides of an ``if`` too."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value.strip(" :")


def warnings_of(sources: dict[str, str]) -> dict[str, str]:
    """Texts that are logged as warnings or worse, with the file of each.

    A function that only passes its argument on to the log is followed to its callers; a name for one of two levels
    counts as a warning, for the texts that are compared with if the text is a variable. A text that is found in none of
    these ways is an error of this test.
    """
    trees = {name: ast.parse(text) for name, text in sources.items()}
    calls = [(name, node) for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found: dict[str, str] = {}
    for name, tree in trees.items():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            levels = names_of_levels(function)
            for call in (
                node for node in ast.walk(function) if isinstance(node, ast.Call) and is_warning(node, levels)
            ):
                given = call.args[0]
                pieces = [piece for piece in strings(given) if len(piece) >= LEAST_LETTERS]
                if isinstance(given, ast.Name):
                    pieces = [*passed_on(function, given.id, calls), *compared(function, given.id)]
                    assert pieces, f"{name}:{call.lineno}: what is logged here?"
                found |= dict.fromkeys(pieces, name)
    return found


def is_level(node: ast.AST) -> bool:
    """Whether it is a method of a log, of a level that an operator should see."""
    return isinstance(node, ast.Attribute) and node.attr in LEVELS and ast.unparse(node.value).lower().endswith("log")


def is_warning(call: ast.Call, levels: set[str]) -> bool:
    """Whether it logs at such a level; ``levels`` are names that stand for one."""
    return bool(call.args) and (is_level(call.func) or getattr(call.func, "id", None) in levels)


def names_of_levels(function: ast.AST) -> set[str]:
    """Names as in ``tell = _log.debug if ... else _log.warning``."""
    assigned = (node for node in ast.walk(function) if isinstance(node, ast.Assign))
    return {
        target.id
        for node in assigned
        if not isinstance(node.value, ast.Call) and any(is_level(inner) for inner in ast.walk(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def compared(function: ast.AST, name: str) -> Iterator[str]:
    """Texts that the variable ``name`` is compared with."""
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == name:
            for other in node.comparators:
                yield from strings(other)


def passed_on(
    function: ast.FunctionDef | ast.AsyncFunctionDef, parameter: str, calls: list[tuple[str, ast.Call]]
) -> Iterator[str]:
    """What callers give for ``parameter`` of ``function``."""
    names = [argument.arg for argument in function.args.args if argument.arg != "self"]
    if parameter not in names:
        return
    method = len(names) < len(function.args.args)
    index = names.index(parameter)
    for _, call in calls:
        called = getattr(call.func, "attr" if method else "id", "")
        if called == function.name and len(call.args) > index:
            yield from (piece for piece in strings(call.args[index]) if len(piece) >= LEAST_LETTERS)


def sources() -> dict[str, str]:
    """Every file of the streamer."""
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (ROOT / "streamer").rglob("*.py")}


def test_every_warning_is_explained() -> None:
    """Whatever the log warns of stands in the document, word for word, with what to do about it."""
    found = warnings_of(sources())
    assert len(found) > 30
    assert {text: file for text, file in found.items() if text not in TEXT} == {}


def test_the_search_finds_them_all() -> None:
    """Plain texts, both of a choice, pieces of an f-string, ``tell``, and what is passed on by another function."""
    source = """
def a(self, n, other):
    _log.warning("plain and simple", n=n)
    log.error("one of two texts" if n else "the other of them")
    self._log.critical(f"more than {n} stations")
    tell = _log.debug if n else _log.warning
    tell("told at two levels")
    for what in n:
        grave = what in ("a grave matter", "another one")
        say = _log.warning if grave else _log.info
        say(what)
    _log.info("not a warning at all")
    other.error("not a log but a parser")
    self._say("passed on to the log")
def _say(self, text):
    _log.warning(text)
"""
    assert set(warnings_of({"a.py": source})) == {
        "plain and simple", "one of two texts", "the other of them", "more than", "stations", "told at two levels",
        "passed on to the log", "a grave matter", "another one",
    }  # fmt: skip
    with pytest.raises(AssertionError, match="what is logged here"):
        warnings_of({"b.py": "def f(x):\n    y = x.text\n    _log.warning(y)\n"})


def test_lines_that_are_explained_exist() -> None:
    """What the tables of the log explain is logged somewhere: nothing is left over from before."""
    (tables,) = re.findall(r"^## What the log says\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    told = {text for row in rows for text in re.findall(r"`([^`]+)`", row.split("|")[1])}
    code = "\n".join(sources().values())
    assert len(told) > 30
    assert {text for text in told if re.sub(r"\d+", "", text) not in re.sub(r"\d+|\{\w+\}", "", code)} == set()


def metric_names() -> set[str]:
    """Every metric that some part of the daemon makes, as Prometheus sees it."""
    names = set()
    for source in sources().values():
        for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            maker = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if maker in MAKERS and call.args and isinstance(call.args[0], ast.Constant):
                name = str(call.args[0].value)
                names.add((name if name.startswith("onset_") else f"onset_{name}") + MAKERS[maker])
    return names


def test_metrics_are_those_of_the_daemon(tmp_path: Path) -> None:
    """Each metric is explained, and no other is named, in the tables or in the rules for alerts."""
    daemon, _ = make_daemon(write_config(tmp_path, seedlink=[1], mqtt=1))
    families = list(daemon.metrics.registry.collect())
    served = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert len(served) > 10
    assert served <= metric_names(), "the search finds what a daemon serves"
    assert {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bonset_[a-z_]+", TEXT)} == metric_names()


def test_reasons_are_those_of_healthz() -> None:
    """The table has a row for each reason, in their order."""
    (table,) = re.findall(r"^## Reasons of /healthz\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(REASONS)


def test_settings_shown_are_valid(tmp_path: Path) -> None:
    """The settings of the installation load, with the shipped bundle where it is in the source."""
    (shown,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "streamer.toml"
    path.write_text(shown.replace("/opt/onset/models", str(ROOT / "models")))
    settings = load_settings(path)
    assert (settings.metrics.enabled, settings.log.format) == (True, "json")
    assert load_bundle(settings.bundle.path).spec.components == "ZNE"


def test_files_and_links_exist() -> None:
    """What the installation copies is in the source, and every link leads somewhere."""
    copied = set(re.findall(r"/opt/onset/src/([\w./-]+\w)", TEXT))
    assert {"systemd/onset-streamer.service", "systemd/onset.sysusers.conf", "configs/streamer.toml"} <= copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    anchors = {
        "#" + re.sub(r"[^\w -]", "", line.lstrip("# ")).replace(" ", "-").lower()
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    broken = [
        link
        for link in links
        if link not in anchors and not (ROOT / "docs" / link.partition("#")[0]).resolve().exists()
    ]
    assert broken == []
    assert "systemd/credentials.conf" in TEXT
    assert (ROOT / "systemd" / "credentials.conf").is_file()


@pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")
@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("mosquitto_passwd")), reason="needs openssl")
async def test_the_broker_shown_is_secure(tmp_path: Path) -> None:
    """A real Mosquitto with the configuration shown: the daemon writes, a reader reads, and neither does the other."""
    certify(tmp_path)
    make_users(tmp_path / "passwords", "onset", "reader")
    config, rules = (
        re.findall(rf"<!-- {name} -->\n```\n(.*?)```", TEXT, re.DOTALL)[0] for name in ("mosquitto.conf", "onset.acl")
    )
    (tmp_path / "onset.acl").write_text(rules)
    lines = config.replace("/etc/mosquitto/certs", str(tmp_path)).replace("/etc/mosquitto", str(tmp_path))
    lines = lines.replace("/var/lib/mosquitto", str(tmp_path)).removeprefix("listener 8883\n")
    with mosquitto(tmp_path, lines) as broker:
        ca_file = tmp_path / "broker.crt"

        def peer(user: str, password: str) -> BrokerClient:
            return BrokerClient(
                Broker(
                    host="localhost",
                    port=broker.port,
                    username=user,
                    password=password,
                    ca_file=ca_file,
                    client_id=user,
                )
            )

        daemon, reader = peer("onset", "of onset"), peer("reader", "of reader")
        await daemon.connect()
        await reader.connect()
        await reader.subscribe("onset/v1/#", qos=1)
        assert (await daemon.send("onset/v1/picks/XX/ONE/--/P", b"{}")).value < 0x80
        assert str((await anext(reader.messages)).topic) == "onset/v1/picks/XX/ONE/--/P"
        assert (await daemon.send("elsewhere", b"{}")).value == 0x87
        assert (await reader.send("onset/v1/picks/XX/ONE/--/P", b"{}")).value == 0x87
        await daemon.leave()
        await reader.leave()
        with pytest.raises(aiomqtt.MqttError, match=r"(?i)authori"):
            await peer("onset", "guessed").connect()


def make_users(path: Path, *names: str) -> None:
    """A Mosquitto password file as the document makes it; the password of ``x`` is ``of x``."""
    for number, name in enumerate(names):
        create = [] if number else ["-c"]
        subprocess.run(["mosquitto_passwd", *create, "-b", str(path), name, f"of {name}"], check=True)


def certify(folder: Path) -> None:
    """``broker.crt`` and its key, for localhost and 127.0.0.1, its own authority."""
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(folder / "broker.key"), "-out", str(folder / "broker.crt"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
