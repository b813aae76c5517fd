"""Reads the census table Adult: who earns more than 50,000 dollars a year.

Columns keep the name of the feature that they come from, so that parties may hold some features each.
"""

import math
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import torch
from torch import Tensor

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import MIB
from p2ptrain.tasks.loaders import files

FILES = {"train": "adult.data", "test": "adult.test"}
FILE_BYTES_MAX = 16 * MIB

LABELS = {"<=50K": 0, ">50K": 1}

LONG_TAILED = ("capital-gain", "capital-loss")
"""Most are zero and a few enormous: log(1 + x) is taken."""

FEATURES = {
    "age": "",
    "workclass": (
        "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay Never-worked ?"
    ),
    "fnlwgt": "",
    "education": (
        "Bachelors Some-college 11th HS-grad Prof-school Assoc-acdm Assoc-voc 9th 7th-8th 12th "
        "Masters 1st-4th 10th Doctorate 5th-6th Preschool"
    ),
    "education-num": "",
    "marital-status": (
        "Married-civ-spouse Divorced Never-married Separated Widowed Married-spouse-absent Married-AF-spouse"
    ),
    "occupation": (
        "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty "
        "Handlers-cleaners Machine-op-inspct Adm-clerical Farming-fishing Transport-moving "
        "Priv-house-serv Protective-serv Armed-Forces ?"
    ),
    "relationship": "Wife Own-child Husband Not-in-family Other-relative Unmarried",
    "race": "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black",
    "sex": "Female Male",
    "capital-gain": "",
    "capital-loss": "",
    "hours-per-week": "",
    "native-country": (
        "United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) India "
        "Japan Greece South China Cuba Iran Honduras Philippines Italy Poland Jamaica Vietnam Mexico "
        "Portugal Ireland France Dominican-Republic Laos Ecuador Taiwan Haiti Columbia Hungary "
        "Guatemala Nicaragua Scotland Thailand Yugoslavia El-Salvador Trinadad&Tobago Peru Hong "
        "Holand-Netherlands ?"
    ),
}
"""In the order of the file: the values of each, as `adult.names` lists them; none: it is a number.

`?` is a value of its own: that somebody does not say it tells something too.
"""


@dataclass(frozen=True)
class Table:
    """Rows as numbers.

    values: float32 of shape (rows, columns).
    labels: int64 of shape (rows,); 1: more than 50,000.
    groups: the columns of each feature.
    columns: what each column says, such as `age` or `sex=Male`.
    """

    values: Tensor
    labels: Tensor
    groups: dict[str, slice]
    columns: tuple[str, ...]

    def only(self, *features: str) -> "Table":
        """Return the table with these features, in this order: what one party holds.

        Raises:
            ConfigError: there is no such feature.
        """
        for feature in features:
            if feature not in self.groups:
                raise ConfigError(f"the table has no feature {feature!r}", f"it has {', '.join(self.groups)}")
        parts = [self.groups[feature] for feature in features]
        return Table(
            torch.cat([self.values[:, part] for part in parts], 1) if parts else self.values[:, :0],
            self.labels,
            _groups({feature: part.stop - part.start for feature, part in zip(features, parts, strict=True)}),
            tuple(name for part in parts for name in self.columns[part]),
        )


def find() -> Path:
    """Return the folder with the table; get it if need be.

    Raises:
        ConfigError: it is not here, and could not be got.
    """
    return files.find("census")


def read(folder: Traversable, split: str, *, official: bool = True) -> Table:
    """Read a split, `train` or `test`.

    Numbers are made to have the mean 0 and the deviation 1 that they have in the train data; other features
    become a column for each of their values.

    Raises:
        ConfigError: a file is missing, damaged or another.
    """
    train = _rows(folder, "train", official)
    rows = train if split == "train" else _rows(folder, split, official)
    values = torch.tensor([row[:-1] for row in rows], dtype=torch.float64)
    reference = values if rows is train else torch.tensor([row[:-1] for row in train], dtype=torch.float64)
    blocks = []
    columns: list[str] = []
    for place, (feature, listed) in enumerate(FEATURES.items()):
        column = values[:, place]
        if listed:
            names = listed.split()
            blocks.append(torch.nn.functional.one_hot(column.long(), len(names)).float())
            columns += [f"{feature}={name}" for name in names]
        else:
            known = reference[:, place]
            deviation = known.std(correction=0).clamp_min(1e-9)
            blocks.append(((column - known.mean()) / deviation).float().unsqueeze(1))
            columns.append(feature)
    groups = _groups({feature: block.shape[1] for feature, block in zip(FEATURES, blocks, strict=True)})
    labels = torch.tensor([int(row[-1]) for row in rows])
    return Table(torch.cat(blocks, 1), labels, groups, tuple(columns))


def _groups(widths: dict[str, int]) -> dict[str, slice]:
    groups, begin = {}, 0
    for feature, width in widths.items():
        groups[feature] = slice(begin, begin + width)
        begin += width
    return groups


def _rows(folder: Traversable, split: str, official: bool) -> list[list[float]]:
    """Return every row as numbers: measured ones, the places of values in their lists, the label last."""
    file = files.choose(folder, FILES[split])
    content = files.read(file, "census" if official else "", FILE_BYTES_MAX)
    places = [{name: float(place) for place, name in enumerate(FEATURES[one].split())} for one in FEATURES]
    rows = []
    with files.reading(file):
        for number, line in enumerate(content.decode("ascii").splitlines(), 1):
            if not line.strip() or line.startswith("|"):
                continue
            fields = [field.strip() for field in line.split(",")]
            try:
                rows.append(_row(fields, places))
            except (ValueError, KeyError) as error:
                raise ValueError(f"line {number} does not fit ({error})") from None
        if not rows:
            raise ValueError("it holds no rows")
    return rows


def _row(fields: list[str], places: list[dict[str, float]]) -> list[float]:
    if len(fields) != len(FEATURES) + 1:
        raise ValueError(f"{len(fields)} fields in place of {len(FEATURES) + 1}")
    row = []
    for feature, field, known in zip(FEATURES, fields[:-1], places, strict=True):
        number = known[field] if known else float(field)
        if not math.isfinite(number) or number < 0:
            raise ValueError(f"{feature} is {field}")
        row.append(math.log1p(number) if feature in LONG_TAILED else number)
    return [*row, float(LABELS[fields[-1].removesuffix(".")])]
