"""What do NiN's authors and others report of it? Quoted as published; nobody here measured it.

Each number has the digits that were printed, and the key of its publication in references.bib.
The paper's comparison of averages with fully connected heads is left out: no text at hand gives it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportedError:
    """The share of test images that a network of a publication got wrong."""

    data_set: str
    conditions: str
    error_percent: str  # with the digits that were printed
    publication: str  # for readers
    source: str  # key of references.bib


@dataclass(frozen=True)
class ReportedEnd:
    """How somebody else's training of a network of `ninlab.architectures` ended, on test images."""

    network: str
    data_set: str
    accuracy: str  # with the digits that were printed, as a share
    source: str  # key of references.bib
    loss: str | None = None
    year: int | None = None  # where one source printed several


_DROPOUT = "dropout"
_AUGMENTED = "dropout and augmentation"

NIN_ERRORS = (
    ReportedError("CIFAR-10", _DROPOUT, "10.41", "paper", "Lin2013"),
    ReportedError("CIFAR-10", _AUGMENTED, "8.81", "paper", "Lin2013"),
    ReportedError("CIFAR-100", _DROPOUT, "35.68", "paper", "Lin2013"),
    ReportedError("SVHN", _DROPOUT, "2.35", "paper", "Lin2013"),
    ReportedError("MNIST", _DROPOUT, "0.47", "paper", "Lin2013"),
    # printed as an accuracy of 89.6% on the validation set
    ReportedError("CIFAR-10", "trained model", "10.4", "model card", "LinCard"),
)
"""NiN's errors as its authors report them."""

TEXTBOOK_ENDS = (
    ReportedEnd("nin", "Fashion-MNIST", "0.842", "D2LSlides2023", "0.374", 2021),
    ReportedEnd("nin", "Fashion-MNIST", "0.790", "D2LSlides2023", "0.563", 2023),
)
"""What the textbook printed of its NiN, oldest first: one notebook, executed twice."""

STRIDED_END = ReportedEnd("nin_cifar10_strided", "CIFAR-10", "0.7657", "Aiqianji")
"""What is reported of the NiN for CIFAR-10 whose first layer has a stride."""
