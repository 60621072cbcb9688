"""Networks and data sets as `metrics` expects them; scores against ground truth."""
