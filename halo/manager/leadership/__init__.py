"""The leadership of a manager: standing by, taking it, and who else is there."""
