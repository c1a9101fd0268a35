"""What there is to run: benchmark folders, assets, and where their files are."""
