"""What the scan for personal data finds, takes for it, and costs: synthetic rows, no person's data.

`python benchmarks/personal_data.py` prints one JSON object. found: share of libphonenumber's example numbers of 22
countries, their last four digits drawn anew, that the scan finds in a sentence, by the way in which they are written.
taken: share of random numbers of no person that it takes for one, by their form and the regions. rows_per_s: of short
messages, of which one in ten holds an address or a phone number, on one core.
"""

import argparse
import json
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import phonenumbers

from stillroom.data.personal.scan import Scanner
from stillroom.personal_data_params import PersonalDataParams

COUNTRIES = [
    "AT",
    "BE",
    "CA",
    "CH",
    "CZ",
    "DE",
    "DK",
    "ES",
    "FI",
    "FR",
    "GB",
    "GR",
    "HU",
    "IE",
    "IT",
    "NL",
    "NO",
    "PL",
    "PT",
    "RO",
    "SE",
    "US",
]
REGIONS = (("DE",), ("US",), ("NL",), ("DE", "ES", "FR", "GB", "NL"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3000, help="random numbers of each form (default 3000)")
    parser.add_argument("--messages", type=int, default=50_000, help="messages for the speed (default 50000)")
    given = parser.parse_args()
    figures = {
        "found": found(max(1, given.rows // 100)),
        "taken": {"+".join(regions): taken(regions, given.rows) for regions in REGIONS},
        "rows_per_s": {"+".join(regions): round(speed(regions, given.messages)) for regions in REGIONS},
    }
    print(json.dumps(figures))


def found(draws: int) -> dict[str, dict[str, float]]:
    """Share and number of phone numbers, by how they are written."""
    rng = random.Random(0)
    hits: dict[str, list[bool]] = {}
    for country in COUNTRIES:
        scanner = Scanner(PersonalDataParams(kinds=("phone",), regions=(country,)))
        for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE):
            for _ in range(draws):
                for written, number in _written(_drawn(country, kind, rng)).items():
                    lead = "call" if written == "bare, behind a word for calling" else "it is"
                    text = f"{lead} {number}, before noon"
                    hits.setdefault(written, []).append(dict(scanner.redacted(text)[1]) == {"phone": 1})
    return {written: {"share": round(sum(of) / len(of), 4), "numbers": len(of)} for written, of in hits.items()}


def taken(regions: Sequence[str], rows: int) -> dict[str, dict[str, float]]:
    """Share of random numbers that are taken for personal data, by form and kind; kinds of no hit are left out."""
    scanner = Scanner(PersonalDataParams(regions=tuple(regions)))
    shares = {}
    for name, draw in _forms(random.Random(0)).items():
        scanner.over(name, [f"my order {draw()} has not come" for _ in range(rows)])
        kinds = scanner.report().files[name].kinds
        shares[name] = {kind: round(of["texts"] / rows, 4) for kind, of in kinds.items() if of["texts"]}
    return shares


def speed(regions: Sequence[str], messages: int) -> float:
    """Messages a second of processor time."""
    rng = random.Random(0)
    number = _forms(rng)["10 digits"]
    texts = []
    for at in range(messages):
        order = f"my order {number()} from 2024-05-{rng.randrange(1, 29):02} has not come, please tell me when it will"
        value = f"max{at}@example.org" if at % 20 == 0 else f"030 {rng.randrange(10**7):07}"
        plain = "where is my card, I ordered it days ago and no one answers the question that I have put"
        texts.append(plain if at % 2 else f"{order} ({value})" if at % 10 == 0 else order)
    scanner = Scanner(PersonalDataParams(regions=tuple(regions), redact=True))
    began = time.process_time()
    scanner.over("messages", texts)
    return messages / (time.process_time() - began)


def _drawn(country: str, kind: int, rng: random.Random) -> Any:
    """A number that can be dialled."""
    example = phonenumbers.example_number_for_type(country, kind)
    while True:
        number = phonenumbers.PhoneNumber()
        number.merge_from(example)
        number.national_number = example.national_number // 10_000 * 10_000 + rng.randrange(10_000)
        if phonenumbers.is_valid_number(number):
            return number


def _written(number: Any) -> Mapping[str, str]:
    forms = phonenumbers.PhoneNumberFormat
    national = phonenumbers.format_number(number, forms.NATIONAL)
    bare = "".join(filter(str.isdigit, national))
    return {
        "+491701234567": phonenumbers.format_number(number, forms.E164),
        "+49 170 1234567": phonenumbers.format_number(number, forms.INTERNATIONAL),
        "as in its country": national,
        "bare": bare,
        "bare, behind a word for calling": bare,
    }


def _forms(rng: random.Random) -> Mapping[str, Callable[[], str]]:
    def digits(count: int) -> str:
        return str(rng.randrange(10 ** (count - 1), 10**count))

    return {
        **{f"{count} digits": (lambda count=count: digits(count)) for count in (8, 9, 10, 11, 13, 16)},
        "4-4-4 digits": lambda: f"{digits(4)}-{digits(4)}-{digits(4)}",
        "4-4-4 digits, 0 in front": lambda: f"0{digits(3)}-{digits(4)}-{digits(4)}",
        "year-7 digits": lambda: f"2024-{digits(7)}",
        "day": lambda: f"{rng.randrange(1, 29):02}.{rng.randrange(1, 13):02}.20{digits(2)}",
        "day and time": lambda: f"2024-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02} 1{rng.randrange(10)}:30",
        "UUID": lambda: str(uuid.UUID(int=rng.getrandbits(128))),
    }


if __name__ == "__main__":
    main()
