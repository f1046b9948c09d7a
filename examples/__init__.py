"""Model repositories in Hugging Face format, as a team would keep them, and the scripts that made them."""
