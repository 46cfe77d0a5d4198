from reflux.components.stages.validate.findings import Finding, failed, refusal, result


def finding(name: str, severity: str, success: bool | None, unexpected: int = 0, rows: tuple[str, ...] = ()) -> Finding:
    return Finding(name, severity, "Nothing is wrong.", "images", success, 15_000, unexpected, list(rows))


LABELS = finding("known_labels", "critical", False, 3, ("a.png has 7", "b.png has 8"))
CONSTANT = finding("no_constant_images", "warning", False, 1, ("c.png has one color",))
MET = finding("width_in_range", "critical", True)
UNKNOWN = finding("class_balance_kept", "warning", None)
ALL = [LABELS, CONSTANT, MET, UNKNOWN]


def test_a_failure_is_told_with_its_first_rows():
    assert LABELS.sentence() == "known_labels (3 of 15,000: a.png has 7, b.png has 8 and 1 more)"
    assert LABELS.sentence(rows=1) == "known_labels (3 of 15,000: a.png has 7 and 2 more)"
    assert CONSTANT.sentence() == "no_constant_images (1 of 15,000: c.png has one color)"


def test_a_failure_says_what_it_costs():
    one = Finding("looks", "warning", "", "images", False, 9, 1, ["a looks like b"], cost="the test is easier")
    assert one.sentence() == "looks (1 of 9: a looks like b; the test is easier)"


def test_only_what_failed_counts():
    assert failed(ALL, "critical") == [LABELS]
    assert failed(ALL, "warning") == [CONSTANT]
    contents = result(ALL, "f", "before", 0.25)
    assert (contents["passed"], contents["critical_failures"], contents["warnings"]) == (False, 1, 1)
    assert [each["success"] for each in contents["expectations"]] == [False, False, True, None]
    assert result([MET, CONSTANT], "f", None, None)["passed"]


def test_a_refusal_names_every_critical_failure_and_the_report():
    assert refusal(ALL, "docs/index.html") == (
        "The data fails 1 critical expectation: known_labels (3 of 15,000: a.png has 7, b.png has 8 and 1 more); "
        "fix the data and run again; the report is docs/index.html."
    )
