"""The same model behind other people's servers. Each file runs in a virtual environment of its own."""
