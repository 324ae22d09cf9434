"""The journal's records, and the memory that is made of them."""
