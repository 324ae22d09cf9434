"""The commands of `halo`, one module for each subject."""
