"""What a convolutional network costs, and whether its design choices pay.

``ninlab`` builds the networks of the Network-in-Network book, counts what they
cost in three independent ways, predicts the peak memory of a training step
without a GPU, trains the networks, and keeps every measured run. Each module
answers one question; README.md lists them, and tests/test_layering.py holds
the direction of the imports.
"""

__version__ = "0.1.0"
