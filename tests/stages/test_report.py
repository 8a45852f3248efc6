"""The stage report: a page that needs only itself, releases that verify, and the same bytes each time."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from stillroom import layout
from stillroom.cost_params import CostParams
from stillroom.data.manifest import DataSource, FileSource, IngestReport, PersonalData, PersonalDataReport
from stillroom.errors import InputError
from stillroom.export.runtime import read_manifest
from stillroom.files import file_digests, read_json, write_json
from stillroom.governance_params import GovernanceParams
from stillroom.params import GateParams, Params
from stillroom.personal_data_params import PersonalDataParams
from stillroom.report.page import markdown, tell_change
from stillroom.report.plots import plots
from stillroom.report.words import GAP
from stillroom.stages import report, select
from tests.report.workspaces import PRICES, params_of, write_workspace

VOID = {"meta", "link", "img", "source", "br", "input", "hr"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the stage has run."""
    folder = tmp_path_factory.mktemp("workspace")
    before = Path.cwd()
    os.chdir(folder)
    try:
        report.run(write_workspace())
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A workspace in which the stage has not run; plots are left out, they take the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "plots", lambda material: {})
    return write_workspace()


class Page(HTMLParser):
    """Collects what a browser would fetch, headings, and tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.alts: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [value or "" for key, value in attrs if key in ("src", "srcset", "href")]
        self.ids += [value or "" for key, value in attrs if key == "id"]
        if tag == "img":
            self.alts.append(given.get("alt") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(done: Path) -> None:
    page = Page()
    text = (done / layout.REPORT / "report.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(source.startswith("data:") for source in page.fetched)
    assert "http" not in re.sub(r"data:[^\"]+", "", text).replace("http-equiv", "")
    assert all(page.alts)
    assert len(page.alts) == 2 * 6, "of each theme"


def test_what_changes_since_the_champion_is_told_in_its_place(done: Path) -> None:
    before = (done / layout.REPORT / layout.PAGE).read_text(encoding="utf-8")
    package = {"student": "good", "package_digest": "e" * 64}
    lost = {name: {"gained": 1, "lost": 20} for name in ("plain", "<script>alert(1)</script>")}
    change = {"model": "toy", "champion": package | {"version": 7}, "candidate": package, "classes": lost}
    told = tell_change(before, change | {"same_data": False}, "40 lost & 2 gained")
    page = Page()
    page.feed(told)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    section = told[told.index('<section aria-labelledby="change">') :]
    assert "good in place of version 7 of toy (good): 40 lost &amp; 2 gained." in section
    assert "it may have been trained on some of these test rows" in section
    assert "&lt;script&gt;alert(1)&lt;/script&gt;</th><td data-sort=" in section
    assert '<td data-sort="-19">-19</td>' in section
    assert told.index("Verdicts") < told.index(section) < told.index("Figures")
    assert "made from other data" not in tell_change(before, change | {"same_data": True}, "")


def test_the_verdict_comes_first(done: Path) -> None:
    text = (done / layout.REPORT / "report.html").read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    assert body.index("good passes") < body.index("Verdicts") < body.index("Figures") < body.index("<img")
    for name, verdict in (("good", "PASS"), ("bad", "FAIL")):
        assert re.search(rf'{name}: <span class="verdict {verdict}">', body)
    for digest in ("d" * 64, "t" * 64):
        assert digest in body


def test_what_vocabulary_and_calibration_did_is_told_on_the_page(done: Path) -> None:
    page = (done / layout.REPORT / "report.html").read_text()
    lost = "12.5% of the validation texts are cut otherwise, 0.12% of their pieces"
    assert f"900 of the teacher&#39;s 30,522 pieces; {lost}" in page
    text = (done / layout.REPORT / "report.md").read_text()
    assert "Vocabulary: 900 of the teacher's 30,522 pieces" in text
    assert "| dynamic_int8 |" in text, "the rungs are a table of both"
    gained = "ECE 0.125, and 0.031 with the temperature 1.5, on the validation rows, which also chose it."
    for told in (page, text):
        assert f"Calibration: {gained}" in told


def test_markdown_names_plots_that_exist(done: Path) -> None:
    folder = done / layout.REPORT
    text = (folder / "report.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\((\S+\.png)\)", text)
    assert sorted(named) == sorted(path.name for path in folder.glob("*.png"))
    assert text.startswith("# good passes")
    assert "**bad: FAIL**" in text


@pytest.mark.parametrize("name", ["good", "bad"])
def test_a_release_is_a_whole_package_with_its_proof(done: Path, name: str) -> None:
    folder = done / layout.RELEASE / name
    manifest = read_manifest(folder)
    assert sorted(manifest["files"]) == ["MODEL_CARD.md", "gate.json", "model.onnx", "tokenizer.json"]
    package = read_json(done / layout.PACKAGES / name / "student/stillroom.json")
    assert manifest["digest"] == package["digest"]
    assert {k: v for k, v in manifest.items() if k != "files"} == {k: v for k, v in package.items() if k != "files"}
    gate = (folder / "gate.json").read_bytes()
    assert gate == (done / layout.GATE_REPORTS / f"{name}.json").read_bytes()
    assert read_json(folder / "gate.json")["package_digest"] == manifest["digest"]


def test_the_card_tells_what_a_user_must_know(done: Path) -> None:
    text = (done / layout.RELEASE / "good/MODEL_CARD.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.license == "other"
    assert card.data.pipeline_tag == "text-classification"
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    metrics = read_json(done / layout.SUMMARY)["students"]["good"]["metrics"]
    assert results == {
        "accuracy": pytest.approx(metrics["accuracy"]),
        "f1": pytest.approx(metrics["macro_f1"], abs=1e-6),
    }
    for told in (
        "distilled from **big**",
        "400 test rows",
        "Testium 4",
        "CC0-1.0",
        "Apache-2.0",
        "first 64 tokens",
    ):
        assert told in text
    assert "do not use it" not in text
    assert "did not pass the gate (FAIL)" in (done / layout.RELEASE / "bad/MODEL_CARD.md").read_text(encoding="utf-8")


def test_declarations_and_the_rules_that_they_break_are_told_as_evidence(params: Params) -> None:
    told = {"ai_act": "high", "owner": "Fraud | <desk>", "policy": "stop", "review_by": "2020-01-31"}
    report.run(params.model_copy(update={"governance": GovernanceParams.model_validate(told)}))
    page = (layout.REPORT / "report.html").read_text(encoding="utf-8")
    text = (layout.REPORT / "report.md").read_text(encoding="utf-8")
    card = (layout.RELEASE / "good/MODEL_CARD.md").read_text(encoding="utf-8")
    for place in (page, text, card):
        assert "evidence for the people who decide, not legal advice" in place
        assert "is for a person to decide" in place
        assert "high-risk-without-use" in place
        assert "personal-data-unknown" in place
        assert "high-risk-without-owner" not in place
        assert "2020-01-31" in place
        assert "review-passed" not in place, "it would not be the same bytes on another day"
    assert "<dt>Owner</dt><dd>Fraud | &lt;desk&gt;</dd>" in page
    assert "- owner: Fraud \\| \\<desk\\>\n" in text
    assert "| owner | Fraud \\| \\<desk\\> |\n" in card
    assert "| lawful basis | not declared |\n" in card
    Page().feed(page)


def test_what_people_wrote_is_no_markup_of_the_report(params: Params) -> None:
    material = report.gather(params)
    summary = {**material.summary, "students": {**material.summary["students"]}}
    summary["students"]["good"] = {**summary["students"]["good"], "reasons": ["recall of '<b>*x*</b>'", "# 1"]}
    finding = replace(material.findings[0], told="says <i>so</i>")
    text = markdown(replace(material, summary=summary, findings=[finding], data_licence="[mine](x)"), [])
    assert "  - recall of '\\<b\\>\\*x\\*\\</b\\>'\n  - \\# 1\n" in text
    assert f"`{finding.rule}`: says \\<i\\>so\\</i\\>\n" in text
    assert "licence of the data: \\[mine\\](x);" in text


@pytest.mark.parametrize(
    ("policy", "outcome"), [("stop", "These declarations break no rule."), ("off", "The checks are off but for one")]
)
def test_a_run_in_order_says_so(params: Params, policy: str, outcome: str) -> None:
    told = {"policy": policy, "teacher_terms": "allowed", "personal_data": "none"}
    report.run(params.model_copy(update={"governance": GovernanceParams.model_validate(told)}))
    for place in (layout.REPORT / "report.html", layout.REPORT / "report.md", layout.RELEASE / "bad/MODEL_CARD.md"):
        told_there = place.read_text(encoding="utf-8")
        assert outcome in told_there
        assert "breaks the rule" not in told_there
        assert "for a person to decide" not in told_there


def test_a_scan_for_personal_data_is_told_with_what_it_does_not_tell(params: Params) -> None:
    places = [layout.REPORT / "report.html", layout.REPORT / "report.md", layout.RELEASE / "good/MODEL_CARD.md"]
    report.run(params)
    for place in places:
        assert "not made" in place.read_text(encoding="utf-8")
    assert "Neither the data nor the answers were examined for personal data" in places[2].read_text(encoding="utf-8")
    none = {"texts": 0, "hits": 0}
    found = PersonalData(texts=1200, texts_with_any=11, kinds={"email": {"texts": 10, "hits": 12}, "phone": none})
    scan = PersonalDataReport(
        regions=("DE", "AT"), national_numbers=(), redacted=True, files={"train": found, "unlabelled": found}
    )
    uri = FileSource(uri="rows.csv", sha256="0" * 64, file="train.csv")
    ingested = IngestReport(source=DataSource(train=uri), files={}, findings=(), personal_data=scan)
    write_json(layout.INGESTED / "report.json", ingested.model_dump(mode="json"))
    asked = PersonalDataParams(kinds=("email", "phone"), regions=("DE", "AT"), redact=True)
    told = GovernanceParams(teacher_terms="allowed", personal_data="none")
    report.run(
        params.model_copy(
            update={"data": params.data.model_copy(update={"personal_data_scan": asked}), "governance": told}
        )
    )
    for place in places:
        text = place.read_text(encoding="utf-8")
        assert "e-mail addresses, phone numbers of DE and AT" in text
        assert "e-mail addresses 12 times in 10, of 1,200 texts; 11 hold something" in text
        assert "found in unlabelled" in text.lower()
        assert "personal-data-found" in text
        assert "not made" not in text
    card = places[2].read_text(encoding="utf-8")
    assert "This package replaces nothing" in card
    assert "that nothing was found does not say that nothing is there" in card
    assert "Neither the data nor" not in card


def test_the_same_inputs_give_the_same_bytes_in_another_process(done: Path) -> None:
    outs = [done / layout.REPORT, done / layout.RELEASE]
    before = [file_digests(out) for out in outs]
    code = (
        "from tests.report.workspaces import params_of; from stillroom.stages import report; "
        "report.run(params_of('good', 'bad'))"
    )
    roots = [str(Path(report.__file__).parents[2]), str(Path(__file__).parents[2])]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(roots)}
    subprocess.run([sys.executable, "-c", code], cwd=done, env=environment, check=True)
    assert [file_digests(out) for out in outs] == before


def test_no_timestamp_nor_folder_of_this_machine_is_written(done: Path) -> None:
    for out in (layout.REPORT, layout.RELEASE):
        for path in (done / out).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert str(done).encode() not in content
                assert not re.search(rb"\b20\d\d-\d\d-\d\d\b", content)


def test_labels_cannot_break_the_page(params: Params) -> None:
    text = report.html(_with_label(report.gather(params), "<script>alert(1)</script>"), {}, {})
    assert text.count("<script>") == 1, "the page's own"
    assert "&lt;script&gt;" in text


def test_a_page_for_nobody_passing(params: Params) -> None:
    strict = params.model_copy(update={"gate": GateParams(retention={"accuracy": 1.0}, resamples=500)})
    select.run(strict)
    report.run(strict)
    text = (layout.REPORT / "report.html").read_text(encoding="utf-8")
    assert "No student passes the gate: good INCONCLUSIVE, bad FAIL." in text
    assert 'class="banner INCONCLUSIVE"' in text


def test_a_search_and_growth_are_told_step_by_step(params: Params) -> None:
    def trial(name: str, settings: dict[str, Any], lacks: tuple[str, ...], whole: bool = True) -> dict[str, Any]:
        package = {"latency_p95_ms": 0.25, "size_bytes": 2_000_000, "quantisation": "dynamic_int8", "seconds": 12.0}
        return {
            "name": name,
            "settings": settings,
            "cost": {"params": 1_234_567},
            "measured": package,
            "retention": 0.9649,
            "whole": whole,
            "lacks": lacks,
        }

    chosen = {"family": "cnn", "epochs": 9}
    failed = trial("bilstm#0", {"family": "bilstm"}, ("failed: the loss is nan",)) | {
        "measured": None,
        "retention": None,
    }
    tried = [
        trial("static#0", {"family": "static"}, ("retention of accuracy 0.9649 is below 0.98",), whole=False),
        failed,
        trial("cnn#0", chosen, ()),
    ]
    material = report.gather(params)
    steps = [
        {"factor": 0, "texts": 0, "loss": 0.5, "accuracy": 0.81},
        {"factor": 1, "texts": 90, "loss": 0.25, "accuracy": 0.9},
    ]
    searched = replace(
        material,
        students=[replace(material.students[0], trials=tried, settings=chosen), *material.students[1:]],
        grown={"kept": {"unlabelled": 1_200, "mix": 90}, "refused": {"mix": 3}, "factor": 1, "curve": steps},
    )
    page, text = (made.replace(GAP, " ") for made in (report.html(searched, {}, {}), markdown(searched, [])))
    Page().feed(page)
    told = [
        ["static#0", "1.23 M", "2 MB", "dynamic_int8", "0.25 ms", "96.5 %", "12 s, in part"],
        ["bilstm#0", "1.23 M", "", "", "", "", "", "failed: the loss is nan"],
        ["cnn#0", "1.23 M", "2 MB", "dynamic_int8", "0.25 ms", "96.5 %", "12 s", "chosen; holds all that is asked"],
    ]
    for cells in told:
        assert f'<th scope="row">{cells[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in cells[1:]) in page
        assert "| " + " | ".join(cells) in text
    for place in (page, text):
        assert "unlabelled 1,200, mix 90; 3 left out, too near a validation or test row" in place
    assert "| 1 | 90 | 0.2500 | 0.9000 |" in text
    plain = report.html(material, {}, {})
    assert "step by step" not in plain
    assert "<dt>Texts without a label</dt><dd>none</dd>" in plain


def test_slices_are_a_table_of_the_page_where_there_are_any(params: Params) -> None:
    assert 'id="slices"' not in report.html(report.gather(params), {}, {})
    slices = {"tens": {"pattern": "0$", "retention": 0.5}, "short": {"max_chars": 7, "retention": 0.99}}
    sliced = params.model_copy(update={"gate": GateParams(resamples=500, slices=slices)})
    select.run(sliced)
    text = report.html(report.gather(sliced), {}, {})
    page = Page()
    page.feed(text)
    assert page.open == []
    for name, student in (("tens", "good"), ("short", "bad")):
        part = read_json(layout.GATE_REPORTS / f"{student}.json")["slices"][name]
        row = text.partition(f'<th scope="row">{name}</th><td>{student}</td>')[2].partition("</tr>")[0]
        cells = re.sub(r"<td[^>]*>", "<td>", row)
        assert f"<td>{part['rows']}</td><td>{part['threshold']}</td><td>{part['retention']['point']:.4f} [" in cells
        assert f'class="verdict {part["verdict"]}"' in row


def test_what_is_open_what_must_not_change_and_the_seeds_are_told_where_there_are_any(params: Params) -> None:
    material = report.gather(params)
    plain = report.html(material, {}, {})
    assert not re.search(r'id="(needs|cases|seeds)"', plain)
    needs = [
        {"criterion": "slice", "of": "short", "rows": 1234, "there": 40},
        {"criterion": "macro_f1", "of": None, "rows": None, "there": 400},
    ]
    cases = {"rows": 40, "demanded": "labels", "changed": 2, "where": ["line 3", "line 9"], "verdict": "FAIL"}
    spread = {"mean": 0.5, "deviation": 0.125, "least": 0.375, "most": 0.625}
    seeds = {"students": ["good", "bad"], "seeds": [0, 1], "accuracy": spread, "retention": {"macro_f1": spread}}
    good, bad = material.students
    told = replace(
        material,
        students=[replace(good, gate={**good.gate, "needs": needs, "cases": cases}), bad],
        summary={**material.summary, "seeds": [seeds]},
    )
    page = Page()
    text = report.html(told, {}, {})
    page.feed(text)
    assert page.open == []
    cells = re.sub(r"<(t[hd])[^>]*>", r"<\1>", text)
    for row in (
        "<th>slice</th><td>short</td><td>good</td><td>40</td><td>1,234</td>",
        "<th>macro f1</th><td>all test rows</td><td>good</td><td>400</td><td>no number is known to</td>",
        "<th>good</th><td>FAIL</td><td>40</td><td>the labels</td><td>2</td><td>line 3, line 9</td>",
        "<th>good, bad</th><td>0, 1</td><td>accuracy</td><td>0.5000</td><td>0.1250</td><td>0.3750</td><td>0.6250</td>",
        "<th>good, bad</th><td>0, 1</td><td>retention, macro-F1</td><td>0.5000</td>",
    ):
        assert row in cells


def test_costs_are_a_section_with_sentence_plot_and_assumptions_and_the_same_bytes_each_time(params: Params) -> None:
    report.run(params)
    without = file_digests(layout.RELEASE)
    for place in (layout.REPORT / "report.html", layout.REPORT / "report.md"):
        assert "break-even" not in place.read_text(encoding="utf-8")
    priced = params.model_copy(update={"cost": CostParams.model_validate(PRICES)})
    drawn = {}
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "plots", lambda material: {"break-even": plots(material)["break-even"]})
            report.run(priced)
        drawn[str(file_digests(layout.REPORT))] = sorted(path.name for path in layout.REPORT.iterdir())
    assert list(drawn.values()) == [["break-even.png", "report.html", "report.md"]]
    page, text = (
        (layout.REPORT / name).read_text(encoding="utf-8").replace("\u00a0", " ")
        for name in ("report.html", "report.md")
    )
    for place in (page, text):
        assert (
            "good pays for itself by the end of month 24: by month 36 it has cost 30,000 EUR, the API 36,000" in place
        )
        assert "on Testium 4 (2 cores, 2 usable)" in place
        assert "not financial advice" in place
    assert text.count("![Cost](break-even.png)") == 1
    assert "| good | 10,000 | 1 | 18,000 | 24,000 | 30,000 | 0.833 |" in text
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    assert len(parsed.alts) == 2, "of each theme"
    assert len(parsed.ids) == len(set(parsed.ids))
    assert file_digests(layout.RELEASE) == without, "prices do not ship"


def test_prices_that_are_not_all_there_are_asked_for_in_the_log(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    report.run(params)
    assert "tells no costs" not in caplog.text
    part = {key: value for key, value in PRICES.items() if key != "setup"}
    report.run(params.model_copy(update={"cost": CostParams.model_validate(part)}))
    assert "report: tells no costs until params.yaml gives cost.setup" in caplog.text
    assert 'id="cost"' not in (layout.REPORT / "report.html").read_text(encoding="utf-8")


def test_a_summary_edited_by_hand_is_refused(params: Params) -> None:
    summary = read_json(layout.SUMMARY)
    summary["students"]["bad"]["verdict"] = "PASS"
    write_json(layout.SUMMARY, summary)
    with pytest.raises(InputError, match="other things of bad than its gate report"):
        report.run(params)
    assert not layout.RELEASE.exists()


def test_students_that_were_removed_leave_the_release(params: Params) -> None:
    report.run(params)
    fewer = params_of("good")
    select.run(fewer)
    report.run(fewer)
    assert [path.name for path in layout.RELEASE.iterdir()] == ["good"]


def test_a_package_that_was_not_the_judged_one_is_refused(params: Params) -> None:
    folder = layout.PACKAGES / "good/student"
    report.run(params)
    before = file_digests(layout.RELEASE)
    manifest = read_json(folder / "stillroom.json")
    write_json(folder / "stillroom.json", manifest | {"temperature": 2.0})
    with pytest.raises(InputError, match="its contents give"):
        report.run(params)
    for path in (layout.GATE_REPORTS / "good.json", layout.EVALUATIONS / "good/evaluation.json"):
        write_json(folder / "stillroom.json", manifest)
        told = read_json(path)
        write_json(path, told | {"package_digest": "0" * 64})
        with pytest.raises(InputError, match="is about 0000"):
            report.run(params)
        write_json(path, told)
    assert file_digests(layout.RELEASE) == before


def test_a_summary_of_another_run_is_refused(params: Params) -> None:
    summary = read_json(layout.SUMMARY)
    write_json(layout.SUMMARY, summary | {"data": summary["data"] | {"sha256": "0" * 64}})
    with pytest.raises(InputError, match="about other data"):
        report.run(params)
    write_json(layout.SUMMARY, summary)
    with pytest.raises(InputError, match="other students"):
        report.run(params_of("good"))


def _with_label(material: report.Material, label: str) -> report.Material:
    students = [
        replace(student, per_class={label: next(iter(student.per_class.values()))}) for student in material.students
    ]
    teacher = {label: next(iter(material.teacher_per_class.values()))}
    return replace(material, students=students, teacher_per_class=teacher)
