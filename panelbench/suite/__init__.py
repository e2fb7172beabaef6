"""From YAML and options to runs: specifications, the request, the plan."""
