"""What a run will do, as data: steps, generators, and making a plan of them."""
