"""Extensions of mmengine: runner, loop, hooks, optimizer, randomness."""
