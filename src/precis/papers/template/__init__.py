"""The files that `precis new` writes, with ID in place of the paper's id."""
