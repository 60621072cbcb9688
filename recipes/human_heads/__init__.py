"""Portraits of people who do not exist: `python -m recipes.human_heads --dest heads.zip`."""

import os

# Each process draws one picture at a time; numpy reads this once, when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
