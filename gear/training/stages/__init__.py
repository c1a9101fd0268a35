"""The four stages of training, one file each, and how they are built."""
