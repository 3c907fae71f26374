"""`python -m csm_ggml` is the command `csm-ggml`."""

import sys

from csm_ggml.cli import main

sys.exit(main())
