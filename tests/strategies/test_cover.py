"""What stands still is known before anybody trains, and no organisation counts twice."""

from strategies.cover import Cover, covers
from strategies.planner import Part

WHOLE = Part("whole", memory=8.0)
HALF, QUARTER = Part("width", memory=4.0, ratio=0.5), Part("width", memory=2.0, ratio=0.25)
FIRST, SECOND = Part("depth", memory=3.0, end="one"), Part("depth", memory=5.0, end="two")
NODES = ("one", "two")


def found(*parts: tuple[str, Part]) -> dict[Part, Cover]:
    return {cover.part: cover for cover in covers(parts, NODES)}


def test_five_of_ten_hold_the_whole_which_is_just_enough() -> None:
    strong = [(f"s{k}", WHOLE) for k in range(5)]
    weak = [(f"w{k}", QUARTER) for k in range(5)]
    cover = found(*strong, *weak)
    assert (cover[WHOLE].floor, len(cover[WHOLE].organisations), cover[WHOLE].moves) == (5, 5, True)
    assert len(cover[QUARTER].organisations) == 10
    assert not found(*strong[:4], *weak, ("w5", QUARTER))[WHOLE].moves


def test_devices_of_one_organisation_count_once() -> None:
    cover = found(*[("clinic", WHOLE)] * 5, ("a", QUARTER), ("b", QUARTER))
    assert cover[WHOLE].organisations == ("clinic",)
    assert not cover[WHOLE].moves
    assert cover[QUARTER].organisations == ("a", "b", "clinic")
    assert cover[QUARTER].moves


def test_fronts_and_slices_lie_in_the_whole_and_in_the_longer_and_wider() -> None:
    cover = found(("a", WHOLE), ("b", SECOND), ("c", FIRST), ("d", HALF), ("e", QUARTER))
    assert {part: "".join(each.organisations) for part, each in cover.items()} == {
        WHOLE: "a", SECOND: "ab", FIRST: "abc", HALF: "ad", QUARTER: "ade",
    }  # fmt: skip


def test_two_organisations_sum_nothing_and_who_holds_nothing_does_not_count() -> None:
    cover = found(("a", WHOLE), ("b", WHOLE), ("c", Part("none")))
    assert (cover[WHOLE].floor, cover[WHOLE].moves) == (0, False)
