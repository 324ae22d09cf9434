"""Commands and questions of many clients at once, and whether their answers fit one order."""
