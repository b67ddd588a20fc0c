"""What the processes of the recording tests have loaded before they are forked."""

import torch._dynamo  # noqa: F401  # a second that every optimizer's birth would take

from ninlab import data

data.fashion_mnist()
