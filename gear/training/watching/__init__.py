"""What a run is watched with: figures, pictures, monitors, trackers. Nothing here changes what is learnt."""
