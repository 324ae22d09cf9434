"""From YAML text to nodes that know their place in the file."""
