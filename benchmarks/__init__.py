"""Speed and memory, printed as JSON. Compare ratios: they come from one run, while seconds differ between machines."""
