"""The assets, one file a stage. Thin: read, call the domain, write, report."""
