"""Watching a run: figures, pictures, monitors, trackers. Nothing here changes what is learnt."""
