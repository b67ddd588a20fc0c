"""What do NiN's authors report of it? Quoted from what they published; nobody here measured it.

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
