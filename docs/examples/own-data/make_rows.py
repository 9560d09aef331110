"""Writes the three tables of this example: invented patients, the same ones every time.

Run it in this folder: ``python make_rows.py``.
"""
# ruff: noqa: INP001 - a script that is run where it lies, not part of a package

import csv
import math
import random
from pathlib import Path

CLINICS = {"north": 40, "harbour": 55, "valley": 68}  # typical age of the patients
ROWS = 60


def patient(rng: random.Random, typical_age: int) -> list[str]:
    """Returns one invented patient as cells; one blood pressure in ten was not measured."""
    age = min(max(round(rng.gauss(typical_age, 10)), 18), 95)
    smoker = int(rng.random() < 0.3)
    pressure = min(max(round(rng.gauss(110 + 0.4 * age, 12)), 70), 230)
    logit = 0.12 * (age - 55) + 0.08 * (pressure - 132) + 1.5 * smoker - 0.6
    ill = int(rng.random() < 1 / (1 + math.exp(-logit)))
    measured = rng.random() < 0.9
    return [str(age), "yes" if smoker else "no", str(pressure) if measured else "", str(ill)]


def main() -> None:
    """Writes one file a clinic beside this script."""
    for name, typical_age in CLINICS.items():
        rng = random.Random(name)  # noqa: S311 - invented patients, not keys
        path = Path(__file__).with_name(f"{name}.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["age", "smoker", "pressure", "ill"])
            table.writerows(patient(rng, typical_age) for _ in range(ROWS))


if __name__ == "__main__":
    main()
