"""Programs in other frameworks that score the same rides with the same model; see README.md."""
