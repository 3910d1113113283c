"""celaje virtualizes computers, from the instruction set up to the cloud."""

__version__ = "0.1.0"
