"""Command groups of `sid`, one module each. What belongs here: options, calls, and how results are printed."""
