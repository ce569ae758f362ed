"""precis: machine-learning paper summaries you can run."""
