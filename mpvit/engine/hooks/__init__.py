"""mmengine's hooks: checkpoints, steps that are not finite, moving averages, progress."""
