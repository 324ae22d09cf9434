"""What HALO's own fence programs share. Standard library only: they run without `site`."""
