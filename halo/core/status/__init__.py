"""The status as data, in the two forms that the API gives."""
