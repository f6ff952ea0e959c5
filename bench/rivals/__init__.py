"""Other clients doing fastpost's job, each a program of its own: `python -m bench.rivals.NAME DIR URL`."""
