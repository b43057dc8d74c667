"""Long proofs, run by `make proof`: kills, soaks, long histories."""
