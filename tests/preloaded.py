"""What the processes of the recording tests have loaded before they are forked."""

import torch._dynamo  # noqa: F401  # a second that every optimizer's birth would take
from pydantic import TypeAdapter  # noqa: F401  # it loads when it is asked for

import ninlab.__main__
import ninlab.commands.record
import ninlab.recording.making  # noqa: F401
from ninlab import data

data.fashion_mnist()
