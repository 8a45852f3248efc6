"""What a scan for personal data found, in the words of page and card: counts, and what they do not tell."""

from stillroom.data.manifest import PersonalData, PersonalDataReport

_WORDS = {
    "email": "e-mail addresses",
    "iban": "IBANs",
    "card": "card numbers",
    "national_id": "national numbers",
    "ip_address": "IP addresses",
    "phone": "phone numbers",
}


def scan_rows(scan: PersonalDataReport | None) -> list[tuple[str, str]]:
    """Rows of name and words for the declarations' table."""
    name = "scan of the texts for personal data"
    if scan is None:
        return [(name, "not made")]
    looked_for = next(iter(scan.files.values())).kinds
    of = {"phone": scan.regions, "national_id": scan.national_numbers}
    told = [_WORDS[kind] + (f" of {' and '.join(of[kind])}" if kind in of else "") for kind in looked_for]
    return [
        (name, ", ".join(told)),
        *((f"found in {file}", _found(found)) for file, found in scan.files.items()),
        ("redacted", "yes, before the teacher saw the texts" if scan.redacted else "no"),
    ]


def scan_limits(scan: PersonalDataReport | None) -> list[str]:
    """What a user of the model must know of the scan, or of there being none."""
    if scan is None:
        return ["Neither the data nor the answers were examined for personal data or for fairness."]
    told = [
        "The data were scanned for personal data by form and check digits only, which finds no names and no postal "
        "addresses; that nothing was found does not say that nothing is there. The answers were not examined for "
        "personal data, nor was anything for fairness."
    ]
    if scan.redacted:
        told.append(
            "In the texts that it was trained and tested on, placeholders such as [EMAIL] stand for what that scan "
            "found. This package replaces nothing: texts that hold such values are unlike those that the figures were "
            "measured on, and it may answer less well there."
        )
    return told


def _found(found: PersonalData) -> str:
    kinds = [
        f"{_WORDS[kind]} {counts['hits']:,} times in {counts['texts']:,}"
        for kind, counts in found.kinds.items()
        if counts["hits"]
    ]
    return f"{', '.join(kinds) or 'nothing'}, of {found.texts:,} texts" + (
        f"; {found.texts_with_any:,} hold something" if kinds else ""
    )
