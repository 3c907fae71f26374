"""The logger of the package. It says nothing until the program that uses it asks for it."""

import logging

logger = logging.getLogger("csm_ggml")
logger.addHandler(logging.NullHandler())
