"""What a model says about a batch, and the teacher's part of it."""
