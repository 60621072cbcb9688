"""Portraits of people who do not exist: `python -m recipes.human_heads --dest heads.zip`."""
