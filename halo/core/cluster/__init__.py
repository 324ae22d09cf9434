"""The cluster at run time: what is known, who needs what, and the state that holds it all."""
