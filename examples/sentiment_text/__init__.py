"""The text that the sentiment example learns from: a lexicon, a grammar over it, and hand-written sentences."""
