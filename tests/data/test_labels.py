import pytest

from stillroom.data.labels import near_equal, nearest_label


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Card arrival", "card_arrival "),
        ("card-arrival", "card.arrival"),
        ("card_arrival", "card_arival"),
        ("refund", "refudn"),
        ("Positive", "positive"),
        ("yes", "Yes"),
    ],
)
def test_typing_errors_are_found(one: str, other: str) -> None:
    assert near_equal({one: 10, other: 1, "something else": 5}) == [tuple(sorted((one, other)))]


@pytest.mark.parametrize(
    ("one", "other"), [("class1", "class2"), ("positive", "negative"), ("cat", "car"), ("step 10", "step 11")]
)
def test_names_that_differ_on_purpose_are_left_alone(one: str, other: str) -> None:
    assert near_equal({one: 10, other: 1}) == []


def test_thousands_of_labels_are_compared() -> None:
    labels = {
        f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)} topic": 2 for a in range(13) for b in range(13) for c in range(13)
    }
    labels["zzyzx-street"] = labels["zzyzx-stret"] = 1
    assert ("zzyzx-street", "zzyzx-stret") in near_equal(labels)


def test_nearest_label_looks_past_case_and_separators() -> None:
    assert nearest_label("CARD ARRIVAL", ["card_arrival", "card_lost"]) == "card_arrival"
    assert nearest_label("weather", ["card_arrival", "card_lost"]) is None
