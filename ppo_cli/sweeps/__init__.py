"""Many runs at once or one after the other: sweeps and searches."""
