"""What is trained here, in the forms that other tools read."""
