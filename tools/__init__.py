"""What is run by hand; CONTRIBUTING.md says when."""
