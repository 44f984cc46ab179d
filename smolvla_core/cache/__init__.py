"""What is computed once per frame and kept on disk, for all trials of all searches."""
